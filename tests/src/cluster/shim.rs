//! A disk whose syncs fail on demand, by a library that is loaded before the system's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Cluster, path_text};

/// `fsync` and `fdatasync` fail with EIO while the file named by `FAIL_SYNC` exists.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int sync_or_fail(const char *name, int file)
{
    const char *flag = getenv("FAIL_SYNC");
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (flag != NULL && access(flag, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return real(file);
}

int fsync(int file) { return sync_or_fail("fsync", file); }
int fdatasync(int file) { return sync_or_fail("fdatasync", file); }
"#;

/// The library, and the file that makes syncs fail.
pub struct FailingSync {
    library: PathBuf,
    flag: PathBuf,
}

impl FailingSync {
    /// Compiles the library into a folder.
    ///
    /// # Panics
    /// If there is no C compiler, which Rust's linker needs anyway.
    #[must_use]
    pub fn compile(folder: &Path) -> Self {
        let (source, library) = (folder.join("failing-sync.c"), folder.join("failing-sync.so"));
        std::fs::write(&source, SOURCE).expect("a file can be written");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc compiles a small library");
        Self { library, flag: folder.join("fail-sync") }
    }

    /// From now on every sync of the nodes that were started with it fails.
    pub fn fail(&self) {
        std::fs::write(&self.flag, "").expect("a file can be written");
    }

    /// The disk is replaced by a good one.
    pub fn mend(&self) {
        std::fs::remove_file(&self.flag).expect("it was there");
    }
}

impl Cluster {
    /// Starts a node whose syncs can be made to fail, and waits until it answers.
    pub fn start_with(&self, name: &str, disk: &FailingSync) {
        let start = self.local("start").args(&[name]);
        let start = start.env("LD_PRELOAD", path_text(&disk.library));
        start.env("FAIL_SYNC", path_text(&disk.flag)).run().ok();
    }
}
