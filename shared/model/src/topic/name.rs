//! A topic that can be published to.

use super::{InvalidTopic, check_text, checked_text};

/// A topic name: 1 to [`super::MAX_TOPIC_BYTES`] bytes, no wildcards, no control characters (MQTT 3.1.1 sections 3.3.2.1
/// and 4.7.3). Names that start with `$` are allowed; brokers keep them for themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName {
    text: String,
}

checked_text!(TopicName);

impl TopicName {
    /// Checks a text.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`] says what is wrong, at which level, and how to mend it.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidTopic> {
        let text = text.into();
        check_text(&text)?;
        for (index, level) in text.split('/').enumerate() {
            if let Some(wildcard) = level.chars().find(|c| matches!(c, '+' | '#')) {
                return Err(InvalidTopic::WildcardInName { wildcard, level: index + 1 });
            }
        }
        Ok(Self { text })
    }

    /// Whether the topic starts with `$`: no filter that starts with a wildcard matches it (MQTT-4.7.2-1).
    pub fn is_dollar(&self) -> bool {
        self.text.starts_with('$')
    }
}
