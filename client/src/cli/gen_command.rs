//! `cortado gen`.

use super::args::{CoffeeArguments, GenCommand};
use super::output::{self, Output, grouped, table};
use crate::Error;
use crate::generate::coffee::{CoffeeOptions, WrittenFile, generate};

pub(super) fn run(command: GenCommand, output: Output) -> Result<(), Error> {
    let GenCommand::Coffee(arguments) = command;
    let CoffeeArguments { out, months, transactions_per_month, users, seed } = arguments;
    let options = CoffeeOptions { months, transactions_per_month, users, seed };
    let files = generate(&out, &options)?;
    output.show(&files, |files| text(files))?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    output::note(&format!("{} files, {} in {}", files.len(), output::bytes(bytes), out.display()));
    Ok(())
}

fn text(files: &[WrittenFile]) -> String {
    let rows = files
        .iter()
        .map(|file| vec![file.name.clone(), grouped(file.rows), output::bytes(file.bytes)])
        .collect();
    table(&["FILE", "ROWS", "SIZE"], &[1, 2], rows)
}
