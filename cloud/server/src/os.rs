//! What the operating system says, in words for people.

use std::io;

use tidegate_model::plain;

/// The system's sentence without its error number, which helps nobody: `Permission denied (os error 13)` is "permission
/// denied".
#[must_use]
pub fn plain(error: &io::Error) -> String {
    plain::system(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_error_is_left_out() {
        let error = std::fs::read("/nowhere/at/all").unwrap_err();
        assert!(error.to_string().contains("os error"), "{error}");
        assert_eq!(plain(&error), "no such file or directory");
        assert_eq!(plain(&io::Error::other("Twice read")), "twice read");
    }
}
