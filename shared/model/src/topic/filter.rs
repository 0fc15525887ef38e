//! A pattern of topics, and the set algebra that rules need: matches, covers, intersects.

use super::{InvalidTopic, TopicName, check_text, checked_text};

/// A topic filter: 1 to [`super::MAX_TOPIC_BYTES`] bytes; `+` stands for one whole level, `#` as the last level for the
/// level above it and everything below (MQTT 3.1.1 section 4.7.1). A filter that starts with a wildcard matches no topic
/// that starts with `$` (section 4.7.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicFilter {
    text: String,
}

checked_text!(TopicFilter);

impl TopicFilter {
    /// Checks a text.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`] says what is wrong, at which level, and how to mend it.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidTopic> {
        let text = text.into();
        check_text(&text)?;
        let levels = text.split('/').count();
        for (index, level) in text.split('/').enumerate() {
            if level == "#" && index + 1 < levels {
                return Err(InvalidTopic::HashNotLast { level: index + 1, levels });
            }
            if level.len() > 1
                && let Some(wildcard) = level.chars().find(|c| matches!(c, '+' | '#'))
            {
                return Err(InvalidTopic::WildcardInText { wildcard, level: index + 1, text: level.into() });
            }
        }
        Ok(Self { text })
    }

    /// Whether the filter has a `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        self.text.contains(['+', '#'])
    }

    /// The text before the first wildcard: every topic that the filter matches starts with it, but for the parent that a
    /// final `/#` also matches, which lacks its last `/`.
    pub fn literal_prefix(&self) -> &str {
        match self.text.find(['+', '#']) {
            Some(end) => &self.text[..end],
            None => &self.text,
        }
    }

    /// Whether the filter matches a topic (MQTT 3.1.1 section 4.7).
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.matches_text(topic.as_str())
    }

    /// As [`Self::matches`], also for a topic that is longer or deeper than a [`TopicName`] may be.
    pub fn matches_text(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.starts_with_wildcard() {
            return false;
        }
        let mut topic = topic.split('/');
        for want in self.levels() {
            if want == "#" {
                return true;
            }
            match topic.next() {
                Some(have) if want == "+" || want == have => {}
                Some(_) | None => return false,
            }
        }
        topic.next().is_none() || self.text == "#"
    }

    /// The filter that matches exactly the topics that both match; `None` when there is none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let dollar = |f: &Self| f.text.starts_with('$');
        if (self.starts_with_wildcard() && dollar(other)) || (other.starts_with_wildcard() && dollar(self)) {
            return None;
        }
        let mut out: Vec<&str> = Vec::new();
        let (mut left, mut right) = (self.levels(), other.levels());
        loop {
            match (left.next(), right.next()) {
                (None, None) | (Some("#"), None) | (None, Some("#")) => break,
                (Some("#"), Some(level)) => {
                    out.push(level);
                    out.extend(right);
                    break;
                }
                (Some(level), Some("#")) => {
                    out.push(level);
                    out.extend(left);
                    break;
                }
                (Some("+"), Some(level)) | (Some(level), Some("+")) => out.push(level),
                (Some(a), Some(b)) if a == b => out.push(a),
                (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => return None,
            }
        }
        // A result is never longer than both: each level is taken from one of the two at the same place.
        Self::new(out.join("/")).ok()
    }

    /// Whether there is a topic that both filters match.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }

    /// Whether every topic that `other` matches is matched by this filter too.
    pub fn covers(&self, other: &Self) -> bool {
        if self.starts_with_wildcard() && other.text.starts_with('$') {
            return false;
        }
        // '#' also stands for its parent, which no topic is where the parent is empty: these two have longer spellings.
        let mut theirs = match other.text.as_str() {
            "#" => "+/#",
            "/#" => "/+/#",
            text => text,
        }
        .split('/');
        for ours in self.levels() {
            if ours == "#" {
                return true;
            }
            match theirs.next() {
                Some("#") | None => return false,
                Some(level) if ours == "+" || ours == level => {}
                Some(_) => return false,
            }
        }
        theirs.next().is_none()
    }

    fn starts_with_wildcard(&self) -> bool {
        self.text.starts_with(['+', '#'])
    }
}
