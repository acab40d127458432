//! Faults inside processes, by libraries that are loaded before the system's: syncs that fail on
//! demand, and a node that kills the process which started it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Cluster, path_text};

/// `fsync` and `fdatasync` fail with EIO while the file named by `FAIL_SYNC` exists.
const FAILING_SYNC: &str = r#"
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

/// A starting process kills its parent (SIGKILL) if it can remove the file named by `KILL_STARTER`.
/// Only one process can, and it does so before anything else.
const STARTER_KILLER: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void kill_starter(void)
{
    const char *flag = getenv("KILL_STARTER");
    if (flag != NULL && unlink(flag) == 0)
        kill(getppid(), SIGKILL);
}
"#;

/// Compiles a library into a folder.
fn compile(folder: &Path, name: &str, text: &str) -> PathBuf {
    let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&source, text).expect("a file can be written");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc compiles a small library");
    library
}

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
        let library = compile(folder, "failing-sync", FAILING_SYNC);
        Self { library, flag: folder.join("fail-sync") }
    }

    /// From now on, every sync of the nodes that were started with the library fails.
    pub fn fail(&self) {
        std::fs::write(&self.flag, "").expect("a file can be written");
    }

    /// From now on, syncs work again.
    pub fn mend(&self) {
        std::fs::remove_file(&self.flag).expect("it was there");
    }
}

/// The library, and the file that makes the next node kill the process that starts it.
pub struct StarterKiller {
    library: PathBuf,
    flag: PathBuf,
}

impl StarterKiller {
    /// Compiles the library into a folder.
    ///
    /// # Panics
    /// Like [`FailingSync::compile`].
    #[must_use]
    pub fn compile(folder: &Path) -> Self {
        let library = compile(folder, "starter-killer", STARTER_KILLER);
        Self { library, flag: folder.join("kill-starter") }
    }

    /// From now on, the next node kills the process that starts it.
    pub fn arm(&self) {
        std::fs::write(&self.flag, "").expect("a file can be written");
    }

    /// Whether a node has done so.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        !self.flag.exists()
    }
}

impl Cluster {
    /// Starts a cluster whose nodes restart dead nodes, with the library loaded.
    #[must_use]
    pub fn up_dangerous(nodes: usize, killer: &StarterKiller) -> Self {
        let (cluster, nodes) = (Self::empty(), nodes.to_string());
        let up = cluster.local("up").args(&["--nodes", &nodes, "--reviver", "process"]);
        // Nodes inherit it and pass it on to the nodes that they start.
        let up = up.env("LD_PRELOAD", path_text(&killer.library));
        up.env("KILL_STARTER", path_text(&killer.flag)).run().ok();
        cluster
    }

    /// All processes that run a node, whichever process has started them.
    #[must_use]
    pub fn all_processes(&self, name: &str) -> Vec<i32> {
        let config = path_text(&self.node(name).path().join("node.toml"));
        let processes = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
        let running = processes.filter_map(|process| {
            let command = std::fs::read(process.path().join("cmdline")).ok()?;
            let named = command.split(|byte| *byte == 0).any(|word| word == config.as_bytes());
            process.file_name().to_str()?.parse().ok().filter(|_| named)
        });
        running.collect()
    }

    /// Starts a node whose syncs can be made to fail, and waits until it answers.
    pub fn start_with(&self, name: &str, disk: &FailingSync) {
        let start = self.local("start").args(&[name]);
        let start = start.env("LD_PRELOAD", path_text(&disk.library));
        start.env("FAIL_SYNC", path_text(&disk.flag)).run().ok();
    }
}
