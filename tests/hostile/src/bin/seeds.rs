//! Writes the samples of one check, or of all, as files from which a fuzzer starts.
//!
//! `seeds FOLDER [CHECK…]` makes `FOLDER/CHECK/sample-N`; without a folder it prints the names.

use anyhow::Context;
use hostile::CHECKS;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        CHECKS.iter().for_each(|check| println!("{}", check.name));
        return Ok(());
    };
    let wanted: Vec<_> = arguments.collect();
    for check in CHECKS.iter().filter(|c| wanted.is_empty() || wanted.iter().any(|w| w == c.name)) {
        let folder = std::path::Path::new(&folder).join(check.name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can't make {}", folder.display()))?;
        for (number, sample) in (check.samples)().iter().enumerate() {
            let file = folder.join(format!("sample-{number}"));
            std::fs::write(&file, sample)
                .with_context(|| format!("can't write {}", file.display()))?;
        }
    }
    Ok(())
}
