//! Checks how the files of each crate depend on each other, and prints what is wrong:
//!
//! - files that import each other in a circle, in any crate. A name that a crate's root or a
//!   folder's file re-exports counts as an import of the file that defines it;
//! - in the core: a component that names another component or the router, and `&mut Facts` outside
//!   the router;
//! - a message that docs/protocol.md does not describe, or that has no sample.
//!
//! Call `structure FOLDER` with the folder of the workspace; `scripts/structure.sh` does so.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

mod circles;
mod core;
mod messages;
mod modules;
mod paths;

fn main() -> Result<ExitCode> {
    let root = PathBuf::from(std::env::args().nth(1).context("usage: structure FOLDER")?);
    let (mut wrong, mut files) = (messages::wrong(&root)?, 0);
    for (name, source) in modules::crates(&root)? {
        let tree = modules::Tree::read(&source)?;
        files += tree.files.len();
        let imports = paths::imports(&tree);
        for circle in circles::circles(&imports) {
            let circle: Vec<_> = circle.into_iter().map(|file| tree.name(file)).collect();
            wrong.push(format!("{name}: these files import each other: {}", circle.join(", ")));
        }
        if name == "cortado-core" {
            wrong.extend(core::wrong(&tree, &imports));
        }
    }
    for line in &wrong {
        println!("{line}");
    }
    println!("structure: {files} files, {} faults", wrong.len());
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
