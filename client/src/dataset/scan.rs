//! Finds the files of each table and reads their headers. It reports every mistake before the
//! client sends anything.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use cortado_engine::Plan;
use cortado_engine::csv::{HeaderRead, read_header};
use cortado_protocol::job::{FileSpec, TableFiles};
use cortado_protocol::limits;

use crate::Error;

/// Deepest level of folders that is searched, since links may form circles.
const MOST_LEVELS: usize = 16;
/// Bytes of a file that are read first; a header is rarely longer.
const HEADER_BYTES: usize = 16 << 10;

/// The files of each of the plan's tables below `root`, in the plan's order of tables.
///
/// # Errors
/// [`Error::BadInput`] or [`Error::Io`] with the name of the file and column, if a table has no
/// file, a file can't be read, or a header lacks a column that the plan needs.
pub fn scan(root: &Path, plan: &Plan) -> Result<Vec<TableFiles>, Error> {
    if !fs::metadata(root).map_err(|source| Error::io("read", root, source))?.is_dir() {
        return Err(Error::BadInput(format!("{} is not a folder", root.display())));
    }
    let mut found = Found::default();
    list(root, "", 0, &mut found)?;
    let Found { mut names, unusable } = found;
    names.sort_unstable();

    let mut tables = Vec::with_capacity(plan.tables().len());
    let mut count = 0;
    for (index, schema) in plan.tables().iter().enumerate() {
        if let Some((name, why)) = unusable.iter().find(|(name, _)| schema.matches(name)) {
            return Err(Error::BadInput(format!(
                "table {}: {} can't be read: {why}; mend it or move it away",
                schema.name,
                root.join(name).display()
            )));
        }
        let mut files = Vec::new();
        for name in names.iter().filter(|name| schema.matches(name)) {
            files.push(read_file_spec(root, name, index, plan)?);
        }
        if files.is_empty() {
            return Err(Error::BadInput(format!(
                "table {}: no file in {} matches {}",
                schema.name,
                root.display(),
                schema.pattern
            )));
        }
        count += files.len();
        tables.push(TableFiles { name: schema.name.clone(), files });
    }
    if count > limits::FILES {
        return Err(Error::BadInput(format!(
            "{count} files: a job has at most {}; join small files into larger ones",
            limits::FILES
        )));
    }
    Ok(tables)
}

/// Compares a job's files with those on disk now.
///
/// # Errors
/// [`Error::BadInput`] with the name of the first file that differs.
pub fn compare(job: &[TableFiles], disk: &[TableFiles]) -> Result<(), Error> {
    let changed = |name: &str, what: &str| {
        Err(Error::BadInput(format!(
            "{name} {what} since the job was submitted; the dataset must not change"
        )))
    };
    for (old, new) in job.iter().zip(disk) {
        for file in &old.files {
            match new.files.iter().find(|other| other.name == file.name) {
                None => return changed(&file.name, "is missing"),
                Some(other) if other.bytes != file.bytes => {
                    let sizes = format!("has {} bytes instead of {}", other.bytes, file.bytes);
                    return changed(&file.name, &sizes);
                }
                Some(other) if other.header != file.header => {
                    return changed(&file.name, "has another header");
                }
                Some(_) => {}
            }
        }
        let is_new = |file: &&FileSpec| !old.files.iter().any(|other| other.name == file.name);
        if let Some(file) = new.files.iter().find(is_new) {
            return changed(&file.name, "was added");
        }
    }
    Ok(())
}

/// The content of a folder, as paths with `/`.
#[derive(Default)]
struct Found {
    /// Files.
    names: Vec<String>,
    /// Entries that are not files and do not lead to one, and why. They matter only if a pattern
    /// matches them.
    unusable: Vec<(String, String)>,
}

/// Lists the whole content of a folder. Names that are not UTF-8 can't match a pattern.
fn list(root: &Path, below: &str, level: usize, found: &mut Found) -> Result<(), Error> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).map_err(|source| Error::io("read", &folder, source))? {
        let entry = entry.map_err(|source| Error::io("read", &folder, source))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        // Follows links.
        match fs::metadata(entry.path()) {
            Ok(data) if data.is_dir() && level < MOST_LEVELS => {
                list(root, &name, level + 1, found)?
            }
            Ok(data) if data.is_file() => found.names.push(name),
            Ok(data) if data.is_dir() => {}
            Ok(_) => found.unusable.push((name, "it is no regular file".to_owned())),
            Err(error) => found.unusable.push((name, error.to_string())),
        }
    }
    Ok(())
}

fn read_file_spec(root: &Path, name: &str, table: usize, plan: &Plan) -> Result<FileSpec, Error> {
    let path = root.join(name);
    let mut file = File::open(&path).map_err(|source| Error::io("open", &path, source))?;
    let bytes = file.metadata().map_err(|source| Error::io("read", &path, source))?.len();
    let mut start = Vec::new();
    let mut wanted = HEADER_BYTES;
    let header = loop {
        let missing = (wanted - start.len()) as u64;
        let read = (&mut file)
            .take(missing)
            .read_to_end(&mut start)
            .map_err(|source| Error::io("read", &path, source))?;
        let eof = (read as u64) < missing;
        match read_header(&start, eof) {
            Ok(HeaderRead::Header { fields, .. }) => break fields,
            Ok(HeaderRead::NeedMore) if !eof && wanted < limits::RECORD_BYTES => wanted *= 2,
            Ok(HeaderRead::NeedMore) => {
                return Err(Error::BadInput(format!(
                    "{}: the header line is longer than {} bytes",
                    path.display(),
                    limits::RECORD_BYTES
                )));
            }
            Err(error) => return Err(Error::BadInput(format!("{}: {error}", path.display()))),
        }
    };
    plan.bind_header(table, &header)
        .map_err(|error| Error::BadInput(format!("{}: {error}", path.display())))?;
    Ok(FileSpec { name: name.to_owned(), bytes, header: header.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(bytes: u64, header: &str) -> Vec<TableFiles> {
        let file = FileSpec { name: "a/x.csv".into(), bytes, header: [header.into()].into() };
        vec![TableFiles { name: "a".into(), files: vec![file] }]
    }

    #[test]
    fn what_a_pattern_names_and_can_not_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let plan = Plan::parse(cortado_engine::COFFEE).unwrap();
        let folder = root.path().join("transactions");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("a.csv")).unwrap();
        let error = scan(root.path(), &plan).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("transactions/a.csv") && text.contains("No such file"), "{text}");
        // An entry that no pattern matches is ignored.
        fs::rename(folder.join("a.csv"), folder.join("a.txt")).unwrap();
        let text = scan(root.path(), &plan).unwrap_err().to_string();
        assert!(text.contains("no file in"), "{text}");
    }

    #[test]
    fn a_changed_dataset_is_named() {
        let job = tables(10, "id");
        compare(&job, &tables(10, "id")).unwrap();
        let none = vec![TableFiles { name: "a".into(), files: Vec::new() }];
        for (disk, expected) in [
            (tables(11, "id"), "has 11 bytes instead of 10"),
            (tables(10, "key"), "another header"),
            (none.clone(), "is missing"),
        ] {
            let message = compare(&job, &disk).unwrap_err().to_string();
            assert!(message.contains("a/x.csv") && message.contains(expected), "{message}");
        }
        assert!(compare(&none, &job).unwrap_err().to_string().contains("was added"));
    }
}
