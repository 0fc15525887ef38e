//! Lines and words of a `mosquitto.conf`: blanks part words, `"` holds them together, `#` in the first column comments.

/// A line that says something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'t> {
    /// Its number, from 1.
    pub(super) number: u32,
    /// Its first word.
    pub(super) option: &'t str,
    /// What follows it, without blanks around.
    pub(super) rest: &'t str,
}

/// All lines that are neither empty nor comments.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.split('\n').zip(1..).filter_map(|(text, number)| {
        let text = text.trim_end_matches('\r');
        let said = text.trim_start_matches(' ').trim_end_matches(' ');
        if text.starts_with('#') || said.is_empty() {
            return None;
        }
        let (option, rest) = said.split_once(' ').unwrap_or((said, ""));
        Some(Line { number, option, rest: rest.trim_start_matches(' ') })
    })
}

impl Line<'_> {
    /// The words after the option, up to one that begins a comment. A quoted word may hold blanks; an open quote ends with
    /// the line.
    pub(super) fn words(&self) -> Vec<String> {
        let (mut words, mut rest) = (Vec::new(), self.rest);
        while !rest.is_empty() {
            let (word, more) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = more.trim_start_matches(' ');
        }
        words
    }

    /// The only word; comments that other options allow are part of the text here, as mosquitto has it.
    pub(super) fn word(&self) -> &str {
        self.rest.split(' ').next().unwrap_or_default()
    }
}

/// The beginning of a text, for a report.
pub(super) fn brief(text: &str) -> String {
    text.chars().take(64).filter(|c| !c.is_control()).collect()
}
