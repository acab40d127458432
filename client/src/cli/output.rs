//! Output of commands: tables for people, JSON for programs. Data goes to standard output,
//! everything else to standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::Error;

/// How a command prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// Whether to print JSON instead of text.
    pub(super) json: bool,
}

impl Output {
    /// Prints bytes to standard output.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::BrokenPipe),
            Err(error) => Err(Error::io("write", "standard output".as_ref(), error)),
        }
    }

    /// Prints a line to standard output.
    pub(super) fn line(self, text: &str) -> Result<(), Error> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints a value as JSON, on one line.
    pub(super) fn value<T: Serialize>(self, value: &T) -> Result<(), Error> {
        self.line(&serde_json::to_string(value).expect("reports serialize to memory"))
    }

    /// Prints the value as JSON, or as the text that `text` makes of it.
    pub(super) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Error> {
        if self.json {
            let json = serde_json::to_string_pretty(value).expect("reports serialize to memory");
            self.line(&json)
        } else {
            self.line(text(value).trim_end())
        }
    }
}

/// Prints a line to standard error; a closed standard error does not stop the command.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A path, quoted for a shell.
pub(super) fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:=@%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A table with a header but without rules: readable in 60 columns, and easy to process with other
/// tools. The columns in `right` hold numbers and are aligned to the right.
pub(super) fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// The terminal's width; `None` if standard output is not a terminal, where lines are not broken.
fn width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// A number with a comma between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in a readable unit.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_paths_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("data/x-1.csv".as_ref()), "data/x-1.csv");
        assert_eq!(quoted("it's here".as_ref()), "'it'\\''s here'");
    }

    #[test]
    fn numbers_are_readable() {
        let all: Vec<String> = [0, 999, 1_000, 1_240_000].map(grouped).into();
        assert_eq!(all, ["0", "999", "1,000", "1,240,000"]);
        assert_eq!([bytes(17), bytes(1 << 20)], ["17 B", "1.0 MiB"]);
    }

    #[test]
    fn a_table_has_no_lines_and_no_trailing_space() {
        let rows = vec![vec!["node-1".into(), "7".into()], vec!["n".into(), "12".into()]];
        let text = table(&["NODE", "JOBS"], &[1], rows);
        assert_eq!(text, "NODE    JOBS\nnode-1     7\nn         12");
    }
}
