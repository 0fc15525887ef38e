//! Variables in texts: `{edge}`. A closed list; braces have no other use, so a literal brace cannot be written.

/// Variables that every rule has. `{edge}`: the edge's name; `{account}`: the account's; `{rule}`: the rule's.
pub const BUILT_IN: [&str; 3] = ["edge", "account", "rule"];

/// Why a text with variables cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// A `{` without `}` or the other way round, or one within another.
    Unbalanced {
        /// The brace that has no partner.
        brace: char,
        /// Its place in the text in characters, from 1.
        at: usize,
    },
    /// A variable that is not in the list.
    Unknown {
        /// What stands between the braces.
        name: String,
    },
}

/// Fills in every variable. All errors at once.
pub(crate) fn expand<'v>(
    text: &str,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<String, Vec<TemplateError>> {
    let mut out = String::with_capacity(text.len());
    let mut errors = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, c) in text.chars().enumerate() {
        match (c, &mut open) {
            ('{', None) => open = Some((index + 1, String::new())),
            ('{', Some((at, _))) => {
                errors.push(TemplateError::Unbalanced { brace: '{', at: *at });
                open = Some((index + 1, String::new()));
            }
            ('}', None) => errors.push(TemplateError::Unbalanced { brace: '}', at: index + 1 }),
            ('}', Some((_, name))) => {
                match value(name) {
                    Some(value) => out.push_str(value),
                    None => errors.push(TemplateError::Unknown { name: std::mem::take(name) }),
                }
                open = None;
            }
            (c, Some((_, name))) => name.push(c),
            (c, None) => out.push(c),
        }
    }
    if let Some((at, _)) = open {
        errors.push(TemplateError::Unbalanced { brace: '{', at });
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// Whether a name may be declared as a variable: `[a-z][a-z0-9_]{0,62}` and not one of [`BUILT_IN`].
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.len() <= crate::limits::MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !BUILT_IN.contains(&name)
}

/// What is wrong with a variable's value, if anything: it must not change what a topic means.
pub(crate) fn value_error(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        Some("is empty")
    } else if value.len() > crate::limits::MAX_VAR_VALUE_BYTES {
        Some("is longer than 128 bytes")
    } else if value.contains(['+', '#', '{', '}']) {
        Some("has one of + # { }")
    } else if value.chars().any(char::is_control) {
        Some("has a control character")
    } else {
        None
    }
}
