//! How a bridge turns a topic of one side into a topic of the other.

use super::{InvalidTopic, TopicFilter, TopicName};

/// Take `strip` off the front, put `prefix` there. Both are plain text, so a level boundary is written as `/`:
/// `strip = "sensors/"`, `prefix = "plant/lyon/"` maps `sensors/t1` to `plant/lyon/t1`.
///
/// `sensors/#` also matches `sensors` itself (MQTT 3.1.1 section 4.7.1.2), which has no `/` to strip. That topic maps to the
/// prefix without its final `/`: `plant/lyon`, which in turn `plant/lyon/#` matches. Bridges that forget this lose the
/// parent's messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicMapping {
    /// What is taken off the front; empty for nothing.
    pub strip: String,
    /// What is put in front of the rest; empty for nothing.
    pub prefix: String,
}

impl TopicMapping {
    /// The mapped topic. `None` when the topic does not start with `strip`, or when the result is no topic: empty, or
    /// beyond the bounds of [`TopicName`].
    pub fn apply(&self, topic: &TopicName) -> Option<TopicName> {
        TopicName::new(self.map_text(topic.as_str())?).ok()
    }

    /// The filter of all topics that this mapping makes of the topics that `filter` matches: what the other side sees.
    ///
    /// # Errors
    ///
    /// [`UnmappableFilter`] when the filter does not start with `strip`, or the result is no filter, such as a prefix without a
    /// final `/` glued to a wildcard.
    pub fn map_filter(&self, filter: &TopicFilter) -> Result<TopicFilter, UnmappableFilter> {
        let text = self.map_text(filter.as_str()).ok_or(UnmappableFilter::NotAPrefix)?;
        Ok(TopicFilter::new(text)?)
    }

    fn map_text(&self, text: &str) -> Option<String> {
        if let Some(rest) = text.strip_prefix(self.strip.as_str()) {
            return Some(format!("{}{rest}", self.prefix));
        }
        let is_parent = self.strip.strip_suffix('/') == Some(text);
        is_parent.then(|| self.prefix.strip_suffix('/').unwrap_or(&self.prefix).to_owned())
    }
}

/// Why a filter cannot go through a mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnmappableFilter {
    /// The filter does not start with `strip`.
    #[error("the filter does not start with the text to strip")]
    NotAPrefix,
    /// The text that results is no filter.
    #[error("the mapped filter is not valid: {0}")]
    Invalid(#[from] InvalidTopic),
}
