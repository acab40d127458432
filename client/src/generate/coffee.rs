//! The dataset of a coffee-shop chain: transactions and their items per month, customers per month
//! of registration, and small reference tables.

mod calendar;
mod files;
mod reference;
mod sales;
mod users;

use std::fs;
use std::path::Path;

pub use calendar::Month;
pub use files::{CoffeeOptions, WrittenFile};
use files::{at, path_of};

use crate::Error;

/// Folders of the dataset.
const FOLDERS: [&str; 7] = [
    "transactions",
    "transaction_items",
    "users",
    "stores",
    "menu_items",
    "vouchers",
    "payment_methods",
];

/// Writes the dataset below `out` and returns its files ordered by name. Files of an earlier run
/// are overwritten.
///
/// # Errors
/// [`Error::BadInput`] if the options make no sense, if a folder of the dataset has CSV files that
/// would be mixed with the new ones, or if a file can't be written.
pub fn generate(out: &Path, options: &CoffeeOptions) -> Result<Vec<WrittenFile>, Error> {
    check(options)?;
    let registrations = users::Registrations::new(options);
    let mut names = reference::names();
    names.extend(registrations.names());
    names.extend(options.months.iter().flat_map(|month| sales::names(*month)));
    for folder in FOLDERS {
        prepare(&out.join(folder), &names, folder)?;
    }

    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut files = reference::write(out)?;
    let jobs = options
        .months
        .iter()
        .map(|month| Job::Sales(*month))
        .chain(registrations.parts().map(Job::Users))
        .collect::<Vec<_>>();
    let queue = std::sync::Mutex::new(jobs.into_iter());
    let work = || -> Result<Vec<WrittenFile>, Error> {
        let mut written = Vec::new();
        loop {
            let job = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
            match job {
                Some(Job::Sales(month)) => {
                    written.extend(sales::write(out, options, &registrations, month)?);
                }
                Some(Job::Users(part)) => written.push(users::write(out, options, &part)?),
                None => return Ok(written),
            }
        }
    };
    std::thread::scope(|scope| -> Result<(), Error> {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            files.extend(thread.join().expect("a writer does not panic")?);
        }
        Ok(())
    })?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A task for one thread.
enum Job {
    Sales(Month),
    Users(users::Part),
}

fn check(options: &CoffeeOptions) -> Result<(), Error> {
    if options.months.is_empty() {
        return Err(Error::BadInput("no months given: expected for example 202401,202501".into()));
    }
    let mut months = options.months.clone();
    months.sort_unstable();
    if let Some(pair) = months.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::BadInput(format!("month {} is given twice", pair[0])));
    }
    if options.users == 0 || options.users > u64::from(u32::MAX) {
        return Err(Error::BadInput(format!(
            "{} users: expected 1 to {}",
            options.users,
            u32::MAX
        )));
    }
    Ok(())
}

/// Makes a folder. Refuses one with CSV files that will not be overwritten, because a run reads
/// every file of the folder.
fn prepare(path: &Path, names: &[String], folder: &str) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))?;
    for entry in fs::read_dir(path).map_err(|source| Error::io("read", path, source))? {
        let entry = entry.map_err(|source| Error::io("read", path, source))?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if name.ends_with(".csv") && !names.contains(&name) {
            return Err(Error::BadInput(format!(
                "{} is in the way: it is not part of the new dataset, but would be read with it; \
                 choose another --out or delete it",
                entry.path().display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
