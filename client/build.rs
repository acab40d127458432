//! Passes the git revision to the program, if it is built from a repository. The daemon uses the
//! same build script.

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let revision = std::env::var("CORTADO_REVISION")
        .ok()
        .or_else(|| git(&["describe", "--always", "--dirty", "--abbrev=12"]));
    println!("cargo::rustc-env=CORTADO_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-env-changed=CORTADO_REVISION");
    for name in ["HEAD", "refs/heads"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}
