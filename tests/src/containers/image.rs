//! The image the tests run: the programs that were just built, in the same final stage as the image for
//! users.
//!
//! It is the ordinary debug build with the few libraries it needs, not a static release build: that
//! takes a second build of all dependencies, which is minutes on a small machine, and tells nothing
//! more of what is tested here, which is the reviver, the compose file, volumes, health checks and
//! the engine.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::process::Command;

use super::engine::{docker, run, try_docker};
use super::repository;
use crate::cluster::{program, programs};

/// Builds the image unless it is there, and returns its name. Must be called in turn.
pub(super) fn ensure() -> String {
    let daemon = program().with_file_name("cortado-node");
    let script = repository().join("scripts/image.sh");
    // Not secret, only to be the same in every run. Each folder of programs has images of its own, so
    // that two work trees don't take each other's away.
    let parts =
        [&*daemon, &*program(), &*script, &repository().join("Dockerfile")].map(|path: &Path| {
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
    let name = format!("cortado-test-{:016x}", hash(&programs()));
    let image = format!("{name}:{:016x}", hash(&parts));
    if try_docker(&["image", "inspect", &image]).is_err() {
        let built = run(Command::new(script).arg(&image).env("PROGRAM", &daemon));
        built.unwrap_or_else(|why| panic!("{why}"));
        let all = docker(&["image", "ls", &name, "--format", "{{.Repository}}:{{.Tag}}"]);
        for old in all.lines().filter(|old| *old != image) {
            // Somebody may look at it.
            let _ = try_docker(&["image", "rm", old]);
        }
    }
    image
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
