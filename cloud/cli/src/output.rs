//! Where words go and in which form: data on standard output, everything else on standard error.
//!
//! Knows formats, colours and terminals; the words of each object are in the modules below.

pub mod edges;
pub mod rules;
pub mod time;
pub mod words;

use std::io::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};

use crate::env::Env;
use crate::failure::Failure;

/// The output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// The table with more columns.
    Wide,
    /// The API's object, as JSON.
    Json,
    /// The API's object, as YAML.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// Standard output and standard error of one command.
#[derive(Debug, Clone)]
pub struct Out {
    /// How data is shown.
    pub format: Format,
    quiet: bool,
    colour: bool,
    decorated: bool,
    stderr_tty: bool,
    can_ask: bool,
}

impl Out {
    /// From the flags and the terminal.
    pub fn new(format: Format, quiet: bool, no_color: bool, no_input: bool, env: &Env) -> Self {
        let colour = !no_color && !env.no_color && (env.stdout_tty || env.force_color);
        Self {
            format,
            quiet,
            colour,
            decorated: env.stdout_tty || (env.force_color && !env.no_color && !no_color),
            stderr_tty: env.stderr_tty,
            can_ask: env.stdin_tty && env.stderr_tty && !no_input,
        }
    }

    /// Without a terminal.
    #[cfg(test)]
    pub fn plain(format: Format) -> Self {
        Self::new(format, false, false, false, &Env::default())
    }

    /// Whether somebody sits there who can be asked.
    pub fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Whether glyphs stand beside words.
    pub fn decorated(&self) -> bool {
        self.decorated
    }

    /// Whether words have colours.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Whether progress may redraw its line.
    pub fn live(&self) -> bool {
        self.stderr_tty && !self.quiet
    }

    /// Whether only data and errors are wanted.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// One line of data.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn line(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(())
    }

    /// A line for people beside the data; not with `--quiet`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// Shows an object: as it came (`json`, `yaml`), as a table, or its names.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn show(
        &self,
        value: &Value,
        table: impl FnOnce(bool) -> Result<String, Failure>,
        names: impl FnOnce() -> Vec<String>,
    ) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => table(false)?,
            Format::Wide => table(true)?,
            Format::Json => serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()),
            Format::Yaml => serde_saphyr::to_string(value).map_err(|e| {
                Failure::Failed(format!("the answer cannot be shown as YAML: {e}; use -o json"))
            })?,
            Format::Name => names().join("\n"),
        };
        if text.is_empty() { Ok(()) } else { self.line(text.trim_end_matches('\n')) }
    }

    /// Says that something was done: a line on standard error for people, the object for programs.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn done(&self, value: &Value, name: &str, text: impl std::fmt::Display) -> Result<(), Failure> {
        if self.for_people() {
            self.note(text);
            return Ok(());
        }
        self.show(value, |_| Ok(String::new()), || vec![name.to_owned()])
    }

    /// Whether data is shown for people.
    pub fn for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }
}

/// What a command shows of several things: for people each as it comes, for programs one document at the end.
pub struct Several<'a> {
    out: &'a Out,
    items: Vec<Value>,
    names: Vec<String>,
}

impl<'a> Several<'a> {
    /// Nothing yet.
    pub fn new(out: &'a Out) -> Self {
        Self { out, items: Vec::new(), names: Vec::new() }
    }

    /// One more: `text` for people, the rest for programs.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn add(&mut self, value: Value, name: String, text: impl std::fmt::Display) -> Result<(), Failure> {
        if self.out.for_people() {
            return self.out.line(text);
        }
        self.done(value, name, text);
        Ok(())
    }

    /// One more for programs alone: people are told otherwise.
    pub fn for_programs(&mut self, value: Value, name: String) {
        if !self.out.for_people() {
            self.items.push(value);
            self.names.push(name);
        }
    }

    /// One more that was done, which people are told beside the data.
    pub fn done(&mut self, value: Value, name: String, text: impl std::fmt::Display) {
        if self.out.for_people() {
            self.out.note(text);
        }
        self.for_programs(value, name);
    }

    /// What programs would be shown.
    pub fn into_items(self) -> Vec<Value> {
        self.items
    }

    /// Ends the document: a list, or where the command line asked for `one` thing that thing alone, if it came to it.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn end(mut self, one: bool) -> Result<(), Failure> {
        if self.out.for_people() {
            return Ok(());
        }
        let shown = match (one, self.items.len()) {
            (true, 0) => return Ok(()),
            (true, 1) => self.items.remove(0),
            (true, _) | (false, _) => json!({ "items": self.items }),
        };
        self.out.show(&shown, |_| Ok(String::new()), || self.names)
    }
}

/// A failure, on standard error: for people, or for programs as one line of JSON.
pub fn complain(format: Format, failure: &Failure) {
    let told = match format {
        Format::Table | Format::Wide | Format::Name => failure.text().map(|text| format!("error: {text}")),
        // One line: it can be found among the lines of progress. It is YAML as well.
        Format::Json | Format::Yaml => failure.document().map(|document| document.to_string()),
    };
    if let Some(told) = told {
        // Without a standard error there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "{told}");
    }
}

/// An empty table in our looks: no lines, two blanks between columns, never wrapped or cut.
pub fn table(out: &Out, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if out.colour() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().copied());
    table
}

/// The text of a table, without blanks at the ends of lines.
pub fn finish(mut table: Table) -> String {
    let columns = table.column_count();
    for index in 0..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt()
}
