//! Texts that the other side wrote, made safe to show: whoever holds the credential of one gateway must not be able to fill
//! a log, forge a line of it, or steer the terminal of an operator.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize as _, Deserializer};

use crate::limits::MAX_DETAIL_BYTES;

/// Reasons of one gateway that are counted apart at the most.
const MAX_REASONS: usize = 32;
/// Features of one agent that are remembered at the most.
const MAX_FEATURES: usize = 200;
/// Length of the name of a reason or a feature, in bytes, at the most.
const MAX_NAME_BYTES: usize = 32;

/// A text as it may be shown: one line of at most [`MAX_DETAIL_BYTES`], without control characters and without characters that
/// turn the direction of writing. What separates words or lines becomes a space, everything else U+FFFD.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_DETAIL_BYTES));
    for char in text.chars().map(shown) {
        if line.len() + char.len_utf8() > MAX_DETAIL_BYTES {
            break;
        }
        line.push(char);
    }
    line
}

fn shown(char: char) -> char {
    match char {
        '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        char if char.is_control() => '\u{fffd}',
        char => char,
    }
}

pub(super) fn detail<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| one_line(&text))
}

pub(super) fn optional_detail<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| one_line(&text)))
}

/// Counters by reason. Reasons are short names; what is none, or one too many, is not counted.
pub(super) fn reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let told = BTreeMap::<String, u64>::deserialize(deserializer)?;
    Ok(told.into_iter().filter(|(reason, _)| is_name(reason)).take(MAX_REASONS).collect())
}

/// Features by name; what is no short name is none of ours, and is not taken.
pub(super) fn features<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let told = BTreeSet::<String>::deserialize(deserializer)?;
    Ok(told.into_iter().filter(|feature| is_name(feature)).take(MAX_FEATURES).collect())
}

/// Whether a text is a short name in the style of our codes.
fn is_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line_that_steers_nothing() {
        let told = "\u{1b}]0;pwned\u{7}a\n\nfake line\u{202e}\0é\u{9b}31m";
        let shown = one_line(told);
        assert_eq!(shown, "\u{fffd}]0;pwned\u{fffd}a  fake line\u{fffd}\u{fffd}é\u{fffd}31m");
        assert_eq!(one_line("connection refused (os error 111)"), "connection refused (os error 111)");
    }

    #[test]
    fn it_is_cut_between_characters() {
        for text in ["x".repeat(300_000), "é".repeat(300_000), "\u{202e}".repeat(300_000)] {
            let shown = one_line(&text);
            assert!(shown.len() <= MAX_DETAIL_BYTES && shown.len() > MAX_DETAIL_BYTES - 4, "{}", shown.len());
        }
        assert_eq!(one_line(&"x".repeat(MAX_DETAIL_BYTES)).len(), MAX_DETAIL_BYTES);
    }

    #[test]
    fn reasons_are_few_short_names() {
        for name in ["full", "too_large", "site-1", "bridge.v1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a\u{1b}", "é", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
