//! Texts of errors, for log and terminal.

/// An error with its causes in one sentence. A cause that the text above it already contains is
/// left out.
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if said.is_empty() {
            said = text;
        } else if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("can't read the key: {source}")]
    struct Wordy {
        source: io::Error,
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let error = anyhow::Error::from(Wordy { source: io::Error::other("no space") });
        assert_eq!(sentence(&error), "can't read the key: no space");
        let failed: Result<(), _> = Err(io::Error::other("no space"));
        let error = failed.context("can't open the log").unwrap_err();
        assert_eq!(sentence(&error), "can't open the log: no space");
    }
}
