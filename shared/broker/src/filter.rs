//! Topic names and topic filters of MQTT 3.1.1 as plain strings: what is valid, what matches, what covers what.
//! Knows no sessions and no rights.

/// What is wrong with a topic name or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It has no characters.
    #[error("it is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// More levels than allowed.
    #[error("it has more than {0} levels")]
    TooDeep(usize),
    /// It holds U+0000.
    #[error("it contains the character U+0000")]
    Nul,
    /// A wildcard in a name, or at a wrong place in a filter.
    #[error("it has a wildcard where none may be")]
    Wildcard,
    /// A shared subscription, which MQTT 3.1.1 does not know.
    #[error("shared subscriptions are not supported")]
    Shared,
}

/// Checks a topic name.
pub(crate) fn check_name(topic: &str, max_bytes: usize, max_levels: usize) -> Result<(), TopicError> {
    check_common(topic, max_bytes, max_levels)?;
    if topic.contains(['+', '#']) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Checks a topic filter.
pub(crate) fn check_filter(filter: &str, max_bytes: usize, max_levels: usize) -> Result<(), TopicError> {
    check_common(filter, max_bytes, max_levels)?;
    if filter == "$share" || filter.starts_with("$share/") {
        return Err(TopicError::Shared);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let alone = level.len() == 1;
        if level.contains('+') && !alone {
            return Err(TopicError::Wildcard);
        }
        if level.contains('#') && !(alone && levels.peek().is_none()) {
            return Err(TopicError::Wildcard);
        }
    }
    Ok(())
}

fn check_common(text: &str, max_bytes: usize, max_levels: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > max_bytes {
        return Err(TopicError::TooLong(max_bytes));
    }
    if text.contains('\0') {
        return Err(TopicError::Nul);
    }
    if text.split('/').count() > max_levels {
        return Err(TopicError::TooDeep(max_levels));
    }
    Ok(())
}

/// True when the valid `filter` matches the valid topic name `topic`.
pub fn matches(filter: &str, topic: &str) -> bool {
    covers(filter, topic)
}

/// True when the valid filter `wide` matches every topic that the valid filter `narrow` matches. A topic name is a
/// filter that matches itself only.
pub fn covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && wide.starts_with(['+', '#']) {
        return false;
    }
    let mut wide_levels = wide.split('/');
    let mut narrow_levels = narrow.split('/');
    loop {
        match (wide_levels.next(), narrow_levels.next()) {
            (Some("#"), _) => return true,
            (Some(_), Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(w), Some(n)) if w == n => {}
            (Some(_), Some(_) | None) | (None, Some(_)) => return false,
            (None, None) => return true,
        }
    }
}

/// True when the filter matches more than one topic.
pub(crate) fn has_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// The longest text with which every topic that `filter` matches must begin.
pub(crate) fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        // `a/#` matches `a` as well, so the separator is not part of it.
        Some(at) => filter[..at].strip_suffix('/').unwrap_or(&filter[..at]),
        None => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_alone_in_their_level_and_hash_is_last() {
        for good in ["#", "+", "a/#", "a/+/b", "+/+", "/", "//", "/+", "$SYS/#", "ü/+"] {
            assert_eq!(check_filter(good, 100, 8), Ok(()), "{good}");
        }
        for bad in ["a#", "a/#/b", "#/a", "a+", "+a/b", "a/b+", "##"] {
            assert_eq!(check_filter(bad, 100, 8), Err(TopicError::Wildcard), "{bad}");
        }
        assert_eq!(check_filter("$share/g/a", 100, 8), Err(TopicError::Shared));
        assert_eq!(check_filter("", 100, 8), Err(TopicError::Empty));
        assert_eq!(check_filter("a/b/c", 100, 2), Err(TopicError::TooDeep(2)));
        assert_eq!(check_filter("abc", 2, 8), Err(TopicError::TooLong(2)));
        assert_eq!(check_name("a/+", 100, 8), Err(TopicError::Wildcard));
        assert_eq!(check_name("a\0", 100, 8), Err(TopicError::Nul));
    }

    #[test]
    fn matching_follows_the_standard() {
        for (filter, topic, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("+", "a", true),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("+/+", "/a", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a", "A", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn covering_is_matching_of_every_topic() {
        assert!(covers("a/+", "a/+") && covers("a/#", "a/+/b") && covers("a/#", "a/#") && covers("a/#", "a"));
        assert!(!covers("a/+", "a/#") && !covers("a/b", "a/+") && !covers("+", "+/+"));
        assert!(!covers("#", "$SYS/#") && covers("#", "#"));
    }

    #[test]
    fn a_literal_prefix_leads_every_match() {
        assert_eq!(literal_prefix("a/b/#"), "a/b");
        assert_eq!(literal_prefix("a/+/c"), "a");
        assert_eq!(literal_prefix("#"), "");
        assert_eq!(literal_prefix("/#"), "");
        assert_eq!(literal_prefix("a/b"), "a/b");
    }
}
