//! MQTT topics: what a topic name and a topic filter may be, which names a filter matches, and how a bridge maps one
//! topic to another.
//!
//! Owns the rules of MQTT 3.1.1 section 4.7 (wildcards, `$` topics) and section 1.5.3 (UTF-8 strings without U+0000),
//! our own tighter bounds, and the namespace `tidegate/` that no rule may touch. Leaves to others: how Tidegate's own
//! topics are spelled (`wire`), and which filters a rule may hold together (`rule`).

mod filter;
mod mapping;
mod name;

pub use filter::TopicFilter;
pub use mapping::{TopicMapping, UnmappableFilter};
pub use name::TopicName;

/// Longest topic name or filter that Tidegate takes, in bytes. MQTT itself allows 65,535 (section 1.5.3); devices use
/// far less, and a bound here bounds every queue record and session.
pub const MAX_TOPIC_BYTES: usize = crate::limits::MAX_TOPIC_BYTES;

/// Most levels (parts between `/`) that a topic name or filter may have.
pub const MAX_TOPIC_LEVELS: usize = crate::limits::MAX_TOPIC_LEVELS;

/// The first level of Tidegate's own topics.
const RESERVED_LEVEL: &str = "tidegate";

/// Whether a topic or filter lies in Tidegate's own namespace: `tidegate` itself or anything under `tidegate/`.
///
/// Rules whose filters or mappings say so outright are refused when they are saved. A filter with a wildcard (`#`, `+/x`)
/// may still *match* such a topic; [`crate::rule::EdgeRule`] leaves those messages out, so `#` means "everything but
/// Tidegate's own".
pub fn reserved(topic: &str) -> bool {
    match topic.strip_prefix(RESERVED_LEVEL) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// Why a text is not a topic name or filter. Levels count from 1; the sentence says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// MQTT-4.7.3-1: at least one character.
    #[error("the topic is empty; write at least one character")]
    Empty,
    /// Longer than [`MAX_TOPIC_BYTES`].
    #[error("the topic has {bytes} bytes, at most {max} are allowed; shorten it", max = MAX_TOPIC_BYTES)]
    TooLong {
        /// The length found, in bytes.
        bytes: usize,
    },
    /// More than [`MAX_TOPIC_LEVELS`].
    #[error("the topic has {levels} levels, at most {max} are allowed; use fewer '/'", max = MAX_TOPIC_LEVELS)]
    TooManyLevels {
        /// The number of levels found.
        levels: usize,
    },
    /// MQTT-1.5.3-2 forbids U+0000, and receivers may close the connection on other control characters.
    #[error("level {level} has a control character (U+{code:04X}); remove it")]
    ControlCharacter {
        /// The level it stands in, from 1.
        level: usize,
        /// The character's code point.
        code: u32,
    },
    /// MQTT-4.7.1-2.
    #[error(
        "'#' must be the last level, here it is level {level} of {levels}; put it at the end or use '+' for one level"
    )]
    HashNotLast {
        /// The level it stands in, from 1.
        level: usize,
        /// How many levels there are.
        levels: usize,
    },
    /// MQTT-4.7.1-2 and MQTT-4.7.1-3: a wildcard fills its level.
    #[error(
        "'{wildcard}' must fill its whole level, level {level} is '{text}'; write it between slashes, as in 'a/{wildcard}'"
    )]
    WildcardInText {
        /// `+` or `#`.
        wildcard: char,
        /// The level it stands in, from 1.
        level: usize,
        /// The text of that level.
        text: String,
    },
    /// MQTT-3.3.2-2: a topic that is published to has no wildcards.
    #[error("level {level} has the wildcard '{wildcard}', which only a filter may have; name one topic")]
    WildcardInName {
        /// `+` or `#`.
        wildcard: char,
        /// The level it stands in, from 1.
        level: usize,
    },
}

/// The checks that names and filters share: length, levels, characters.
fn check_text(text: &str) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(InvalidTopic::TooLong { bytes: text.len() });
    }
    let levels = text.split('/').count();
    if levels > MAX_TOPIC_LEVELS {
        return Err(InvalidTopic::TooManyLevels { levels });
    }
    for (index, level) in text.split('/').enumerate() {
        if let Some(bad) = level.chars().find(|c| c.is_control()) {
            return Err(InvalidTopic::ControlCharacter { level: index + 1, code: bad.into() });
        }
    }
    Ok(())
}

/// Implements what every checked text has: reading it, printing it, and serde that checks.
macro_rules! checked_text {
    ($type:ident) => {
        impl $type {
            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// The levels from left to right; an empty level (`a//b`) is a level.
            pub fn levels(&self) -> impl DoubleEndedIterator<Item = &str> {
                self.text.split('/')
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::topic::InvalidTopic;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = $crate::topic::InvalidTopic;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.text
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.text
            }
        }
    };
}
use checked_text;

#[cfg(test)]
mod tests;
