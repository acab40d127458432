//! A plain reader of CSV (RFC 4180), a character at a time.

use std::path::{Path, PathBuf};

/// A row with as many fields as the header.
pub(super) struct Record<'a> {
    header: &'a [String],
    fields: &'a [String],
}

impl Record<'_> {
    /// A field by its column's name.
    pub(super) fn get(&self, column: &str) -> &str {
        let at = self.header.iter().position(|name| name == column);
        &self.fields[at.unwrap_or_else(|| panic!("there is a column {column}"))]
    }
}

/// Reads all rows of all CSV files of a folder, in the order of the file names; `None` for rows
/// with another number of fields.
pub(super) fn read_table(folder: &Path, mut each: impl FnMut(Option<Record<'_>>)) {
    let entries = std::fs::read_dir(folder).expect("the table has a folder");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(&text).chars().peekable();
        let mut header: Option<Vec<String>> = None;
        let mut fields = vec![String::new()];
        let mut quoted = false;
        let mut any = false;
        loop {
            let next = rest.next();
            let field = fields.last_mut().expect("a row has a field");
            match next {
                Some('"') if quoted && rest.peek() == Some(&'"') => {
                    rest.next();
                    field.push('"');
                }
                Some('"') => {
                    quoted = !quoted;
                    any = true;
                }
                Some(',') if !quoted => {
                    fields.push(String::new());
                    any = true;
                }
                Some('\r') if !quoted && rest.peek() == Some(&'\n') => {}
                Some('\n') if !quoted => row(&mut header, &mut fields, &mut any, &mut each),
                Some(other) => {
                    field.push(other);
                    any = true;
                }
                None => {
                    row(&mut header, &mut fields, &mut any, &mut each);
                    break;
                }
            }
        }
    }
}

/// Handles the end of a row: blank rows are skipped, the first one is the header.
fn row(
    header: &mut Option<Vec<String>>,
    fields: &mut Vec<String>,
    any: &mut bool,
    each: &mut impl FnMut(Option<Record<'_>>),
) {
    let fields = std::mem::replace(fields, vec![String::new()]);
    if !std::mem::take(any) {
        return;
    }
    match header {
        None => *header = Some(fields),
        Some(header) if header.len() == fields.len() => {
            each(Some(Record { header, fields: &fields }));
        }
        Some(_) => each(None),
    }
}
