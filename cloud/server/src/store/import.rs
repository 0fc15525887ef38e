//! Reads what `export` wrote. A file is checked as a whole before its first record is written.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tidegate_cloud_core::Write;

use super::export::{Counts, ExportSummary, FORMAT, Line, hex};
use super::{Store, StoreError};

/// Longest line, in bytes: the largest record is a placement, with a rendered rule in each of three places.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Records of an import that are written at once.
const IMPORT_BATCH: usize = 100;

/// Takes an export line by line, or piece by piece, and knows at its end whether it is whole.
#[derive(Debug, Default)]
pub struct Check {
    hash: Sha256,
    counts: Counts,
    lines: u64,
    rest: Vec<u8>,
    end: Option<ExportSummary>,
}

impl Check {
    /// Takes the next piece of the file, cut anywhere.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and where. It quotes nothing: a line may hold a password.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, more) = bytes.split_at(end + 1);
            bytes = more;
            if self.rest.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_LINE_BYTES { Err(self.at("it is too long")) } else { Ok(()) }
    }

    /// Says whether everything came.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn finish(self) -> Result<ExportSummary, String> {
        match self.end {
            Some(summary) if self.rest.is_empty() => Ok(summary),
            Some(_) => Err("something stands after its last line".to_owned()),
            None if self.lines == 0 && self.rest.is_empty() => Err("it is empty".to_owned()),
            None => Err(format!(
                "it ends after {} lines, before its last one: it was cut, or its disk was full; take another copy",
                self.lines
            )),
        }
    }

    fn at(&self, what: &str) -> String {
        format!("line {}: {what}", self.lines + 1)
    }

    /// One line with its end; gives the record.
    fn line(&mut self, text: &[u8]) -> Result<Option<Line<'static>>, String> {
        if self.end.is_some() {
            return Err(self.at("something stands after its last line"));
        }
        // What the reader says may quote a password.
        let line: Line<'static> = serde_json::from_slice(text).map_err(|error| {
            if self.lines == 0 {
                "it is no export of tidegate: its first line is no header".to_owned()
            } else {
                self.at(&format!("it is not a record of this format (column {})", error.column()))
            }
        })?;
        match (&line, self.lines) {
            (Line::Header { format }, 0) if *format > FORMAT => {
                return Err(format!(
                    "it has format {format}, this version reads up to {FORMAT}; import it with the version of tidegate \
                     that made it, or a later one"
                ));
            }
            (Line::Header { format: 1.. }, 0) => {}
            (Line::Header { .. }, _) => return Err(self.at("a header may only be the first line")),
            (_, 0) => {
                return Err("it is no export of tidegate: its first line is no header".to_owned());
            }
            (Line::End { summary }, _) => {
                if summary.counts != self.counts {
                    return Err(
                        "its records are not as many as its last line says; it was changed or cut".to_owned()
                    );
                }
                if summary.sha256 != hex(&self.hash.clone().finalize()) {
                    return Err("its SHA-256 does not fit its contents; it was changed".to_owned());
                }
                self.end = Some(summary.clone());
            }
            (
                Line::Meta { .. }
                | Line::Rule { .. }
                | Line::Version { .. }
                | Line::Edge { .. }
                | Line::Placement { .. },
                _,
            ) => {}
        }
        self.lines += 1;
        if self.end.is_some() {
            return Ok(None);
        }
        self.hash.update(text);
        line.count(&mut self.counts);
        Ok(Some(line))
    }
}

/// Reads a whole file; gives each record to `take`.
fn read(
    file: &Path,
    mut take: impl FnMut(Line<'static>) -> Result<(), String>,
) -> Result<ExportSummary, String> {
    let mut input = BufReader::new(File::open(file).map_err(|e| crate::os::plain(&e))?);
    let mut check = Check::default();
    let mut text = Vec::new();
    loop {
        text.clear();
        let longest = MAX_LINE_BYTES as u64 + 1;
        (&mut input).take(longest).read_until(b'\n', &mut text).map_err(|e| crate::os::plain(&e))?;
        if text.last() == Some(&b'\n') {
            if let Some(line) = check.line(&text)? {
                take(line)?;
            }
        } else {
            check.feed(&text)?;
            return check.finish();
        }
    }
}

/// Checks a file; nothing is written.
///
/// # Errors
/// [`StoreError::Transfer`]: it cannot be read, or is not whole.
pub async fn check_file(file: &Path) -> Result<ExportSummary, StoreError> {
    let read_file = file.to_owned();
    blocking(move || read(&read_file, |_| Ok(()))).await.map_err(failed(file))
}

/// Fills an empty store from a file that was checked.
///
/// # Errors
/// [`StoreError::Transfer`]: the file changed meanwhile. Or the store's own errors. The store is partly filled then.
pub(crate) async fn fill(store: &dyn Store, file: &Path) -> Result<ExportSummary, StoreError> {
    let (sender, mut batches) = tokio::sync::mpsc::channel::<Vec<Write>>(2);
    let read_file = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::new();
        let gone = || "the store stopped taking records".to_owned();
        let summary = read(&read_file, |line| {
            batch.extend(line.write());
            if batch.len() >= IMPORT_BATCH {
                sender.blocking_send(std::mem::take(&mut batch)).map_err(|_| gone())?;
            }
            Ok(())
        })?;
        sender.blocking_send(batch).map_err(|_| gone())?;
        Ok(summary)
    });
    while let Some(batch) = batches.recv().await {
        store.apply(batch).await?;
    }
    reading.await.unwrap_or_else(|error| Err(error.to_string())).map_err(failed(file))
}

fn failed(file: &Path) -> impl Fn(String) -> StoreError + use<> {
    let file = file.to_owned();
    move |why| StoreError::Transfer { file: file.clone(), why }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
