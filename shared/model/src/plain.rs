//! What the operating system and libraries say, in words for people. Pure: texts in, texts out.

use serde_json::error::Category;

/// The system's sentence without its error number, which helps nobody: `Permission denied (os error 13)` is "permission
/// denied".
#[must_use]
pub fn system(said: &str) -> String {
    let text = said.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// What is wrong with a JSON text, without the place, which the error knows by itself.
#[must_use]
pub fn json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    match error.classify() {
        Category::Eof => "the text ends before the JSON is complete: something is not closed".to_owned(),
        Category::Syntax => syntax(said),
        // Names of fields and kinds of values, which are ours.
        Category::Data | Category::Io => quoted(said),
    }
}

fn syntax(said: &str) -> String {
    let table = [
        ("expected value", "a value is expected here"),
        ("expected ident", "a value is expected here"),
        ("trailing comma", "there is a comma too many"),
        ("trailing characters", "there is more text after the end"),
        ("key must be a string", "a name has to stand in double quotes"),
        ("recursion limit exceeded", "it is nested too deeply"),
        ("control character", "a text holds a control character; write it as an escape, such as \\n"),
        ("invalid escape", "a text holds a backslash that begins no escape; write \\\\ for a backslash"),
        ("lone leading surrogate", "a \\u escape is only one half of a character"),
        ("unexpected end of hex escape", "a \\u escape is only one half of a character"),
        ("invalid number", "a number is not written as JSON has it"),
        ("number out of range", "a number is out of all bounds"),
    ];
    let known = table.into_iter().find(|(theirs, _)| said.starts_with(theirs));
    known.map_or_else(|| quoted(said), |(_, ours)| ours.to_owned())
}

/// Quotes as we write them.
fn quoted(said: &str) -> String {
    said.replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_error_is_left_out() {
        assert_eq!(system("Permission denied (os error 13)"), "permission denied");
        assert_eq!(system("Twice read"), "twice read");
        assert_eq!(system(""), "");
    }

    #[test]
    fn wrong_json_is_told_in_plain_words() {
        let told = |text: &str| json(&serde_json::from_str::<serde_json::Value>(text).unwrap_err());
        for text in ["", "{", "{\"a\"", "[1", "\"a"] {
            assert!(told(text).starts_with("the text ends before"), "{text}: {}", told(text));
        }
        for (text, words) in [
            ("x", "a value is expected here"),
            ("{\"a\":}", "a value is expected here"),
            ("[1,]", "there is a comma too many"),
            ("{} {}", "there is more text after the end"),
            ("{a:1}", "a name has to stand in double quotes"),
            ("{\"a\" 1}", "expected ':'"),
            ("[1 2]", "expected ',' or ']'"),
            ("\"\u{1}\"", "a text holds a control character; write it as an escape, such as \\n"),
            ("\"\\x\"", "a text holds a backslash that begins no escape; write \\\\ for a backslash"),
            (&"[".repeat(200), "it is nested too deeply"),
        ] {
            assert_eq!(told(text), words, "{text}");
        }
        let number = serde_json::from_str::<u8>("\"x\"").unwrap_err();
        assert_eq!(json(&number), "invalid type: string \"x\", expected u8");
    }
}
