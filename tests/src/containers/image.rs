//! The image that the tests run: the programs that were just built, in the final stage of the image
//! for users.
//!
//! It has the ordinary debug build and the few libraries that this needs, not a static release
//! build. That would be a second build of all dependencies, which takes minutes on a small machine.
//! It would test no more of the reviver, the compose file, volumes, health checks and the engine.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::process::Command;

use super::engine::{docker, run, try_docker};
use super::repository;
use crate::cluster::{program, programs};

/// Builds the image unless it exists, and returns its name. Call it only while holding the turn.
pub(super) fn ensure() -> String {
    let daemon = program().with_file_name("cortado-node");
    let script = repository().join("scripts/image.sh");
    // The hash need not be secret, only the same in every run. Each folder of programs has its own
    // images, so that two work trees do not remove each other's.
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
            // The image may still be in use.
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
