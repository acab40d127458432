//! One node's folder: it holds the id of the node's process and whether the operator stopped it.
//! The command line and the process reviver use it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::ProcessId;
use crate::process::Record;

/// A node's configuration.
const CONFIG: &str = "node.toml";
/// The node's messages.
const LOG: &str = "node.log";
/// The process that runs, or ran last.
const PID: &str = "pid";
/// Exists while the node is to stay down.
const RETIRED: &str = "stopped";
/// Locked while a process is started, or while the node is marked to stay down.
const LOCK: &str = ".lock";
/// How long to wait for the end of a process after SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Who starts a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The operator, who overrides an earlier stop.
    Operator,
    /// A peer, which does not start a node that the operator has stopped.
    Peer,
}

/// The outcome of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The process was started.
    Started,
    /// The process ran already.
    Running,
    /// The operator wants the node to stay down.
    Retired,
}

/// A node's folder.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// The folder at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Whether a node has its folder here.
    #[must_use]
    pub fn is_node(&self) -> bool {
        self.config().is_file()
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// The file with the node's messages.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The node's process, if it runs or is paused. A copied folder has none: its process id
    /// belongs to the original folder.
    #[must_use]
    pub fn process(&self) -> Option<ProcessId> {
        let record = Record::load(&self.path.join(PID))?;
        let here = record.folder.is_none_or(|folder| Some(folder) == folder_id(&self.path));
        here.then_some(record.process()).filter(ProcessId::is_running)
    }

    fn save(&self, process: ProcessId) -> io::Result<()> {
        let file = self.path.join(PID);
        let record = Record::new(process, folder_id(&self.path));
        record.save(&file).map_err(|error| about(&file, &error))
    }

    /// Whether the operator wants the node to stay down.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.path.join(RETIRED).exists()
    }

    /// Marks the node to stay down: from now on no peer starts it. A running process continues.
    ///
    /// # Errors
    /// If the folder can't be written to.
    pub fn retire(&self) -> io::Result<()> {
        let _lock = self.lock()?;
        let file = self.path.join(RETIRED);
        fs::write(&file, "stopped on purpose; `cortado local start` ends this\n")
            .map_err(|error| about(&file, &error))
    }

    /// Starts the node's process unless it runs already. The process gets its own process group, so
    /// that no signals of a terminal reach it.
    ///
    /// # Errors
    /// If the folder can't be written to, or the daemon can't be started.
    pub fn start(&self, daemon: &Path, by: By) -> io::Result<Start> {
        let _lock = self.lock()?;
        match by {
            By::Operator => match fs::remove_file(self.path.join(RETIRED)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(about(&self.path.join(RETIRED), &error));
                }
                _ => {}
            },
            By::Peer if self.is_retired() => return Ok(Start::Retired),
            By::Peer => {}
        }
        if self.process().is_some() {
            return Ok(Start::Running);
        }
        let log = File::options().append(true).create(true).open(self.log());
        let log = log.map_err(|error| about(&self.log(), &error))?;
        let mut child = Command::new(daemon)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| about(daemon, &error))?;
        if let Some(process) = ProcessId::of(child.id())
            && let Err(error) = self.save(process)
        {
            // Without the file no other process could find the node.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error);
        }
        // Waits for the child, so that it does not stay a zombie if it ends before this process.
        std::thread::spawn(move || child.wait());
        Ok(Start::Started)
    }

    /// Records this process as the node's: the process that started it may have ended before it
    /// could record that, and then no other process could find the node. The node calls this once
    /// its data folder is locked. It writes nothing in folders whose nodes are not started by
    /// [`Self::start`].
    ///
    /// # Errors
    /// If the folder can't be written to.
    pub fn claim(&self) -> io::Result<()> {
        match ProcessId::of(std::process::id()) {
            Some(process) if self.path.join(LOCK).exists() => self.save(process),
            _ => Ok(()),
        }
    }

    /// Ends the node's process (SIGKILL) if it runs, and starts a new one.
    ///
    /// # Errors
    /// Like [`Self::start`]; also if the process does not end.
    pub fn restart(&self, daemon: &Path, by: By) -> io::Result<Start> {
        if let Some(process) = self.process() {
            let _ = process.signal(Signal::KILL);
            if !process.wait_end(KILL_WAIT) {
                let message = format!("process {} does not end, not even by SIGKILL", process.pid);
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        self.start(daemon, by)
    }

    fn lock(&self) -> io::Result<File> {
        let file = self.path.join(LOCK);
        let lock = File::create(&file).and_then(|lock| lock.lock().map(|()| lock));
        lock.map_err(|error| about(&file, &error))
    }
}

/// Device and inode number of a folder. A copy has different ones; a renamed folder keeps them.
fn folder_id(path: &Path) -> Option<(u64, u64)> {
    let folder = fs::metadata(path).ok()?;
    Some((folder.dev(), folder.ino()))
}

/// The error, with the path of its file.
fn about(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A node whose daemon sleeps, and writes a line at each start.
    struct Sleeper {
        root: tempfile::TempDir,
        place: Place,
    }

    impl Sleeper {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let place = Place::new(root.path().join("node-1"));
            fs::create_dir(place.path()).unwrap();
            fs::write(place.config(), "").unwrap();
            let sleeper = Self { root, place };
            fs::write(sleeper.daemon(), "#!/bin/sh\necho started >&2\nexec sleep 60\n").unwrap();
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(sleeper.daemon(), executable).unwrap();
            sleeper
        }

        fn daemon(&self) -> PathBuf {
            self.root.path().join("daemon")
        }

        fn start(&self, by: By) -> Start {
            self.place.start(&self.daemon(), by).unwrap()
        }

        fn kill(&self) {
            let process = self.place.process().expect("it runs");
            assert!(process.signal(Signal::KILL));
            assert!(process.wait_end(Duration::from_secs(10)));
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            if let Some(process) = self.place.process() {
                let _ = process.signal(Signal::KILL);
            }
        }
    }

    #[test]
    fn a_process_claims_its_place_where_nodes_are_started() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(root.path());
        place.claim().unwrap();
        assert_eq!(place.process(), None, "as under systemd");
        drop(place.lock().unwrap());
        place.claim().unwrap();
        assert_eq!(place.process(), ProcessId::of(std::process::id()));
    }

    #[test]
    fn a_copied_folder_has_no_process_and_a_renamed_one_has() {
        let sleeper = Sleeper::new();
        sleeper.start(By::Operator);
        let copy = sleeper.root.path().join("copy");
        let copied = Command::new("cp").arg("-a").args([sleeper.place.path(), &copy]).status();
        assert!(copied.unwrap().success());
        assert_eq!(Place::new(&copy).process(), None);
        let renamed = sleeper.root.path().join("renamed");
        fs::rename(sleeper.place.path(), &renamed).unwrap();
        assert!(Place::new(&renamed).process().is_some());
        fs::rename(renamed, sleeper.place.path()).unwrap();
        sleeper.kill();
    }

    #[test]
    fn a_start_that_fails_names_the_file_and_leaves_no_process() {
        let sleeper = Sleeper::new();
        fs::create_dir_all(sleeper.place.path().join(PID).join("in the way")).unwrap();
        let error = sleeper.place.start(&sleeper.daemon(), By::Peer).unwrap_err();
        assert!(error.to_string().contains("node-1/pid: "), "{error}");
        let missing = sleeper.root.path().join("no such daemon");
        let error = sleeper.place.start(&missing, By::Peer).unwrap_err();
        assert!(error.to_string().contains("no such daemon: "), "{error}");
    }

    #[test]
    fn many_who_start_it_at_once_start_it_once() {
        let sleeper = Sleeper::new();
        let started = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| sleeper.start(By::Peer))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(started.iter().filter(|start| **start == Start::Started).count(), 1);
        assert_eq!(started.iter().filter(|start| **start == Start::Running).count(), 7);
    }

    #[test]
    fn who_was_stopped_on_purpose_is_started_by_the_operator_alone() {
        let sleeper = Sleeper::new();
        assert_eq!(sleeper.start(By::Operator), Start::Started);
        sleeper.place.retire().unwrap();
        assert_eq!(sleeper.start(By::Peer), Start::Retired);
        sleeper.kill();
        assert_eq!(sleeper.start(By::Peer), Start::Retired);
        assert!(sleeper.place.process().is_none());
        assert_eq!(sleeper.start(By::Operator), Start::Started);
        sleeper.kill();
        assert_eq!(sleeper.start(By::Peer), Start::Started, "the operator's word is over");
    }

    #[test]
    fn a_paused_process_is_replaced() {
        let sleeper = Sleeper::new();
        sleeper.start(By::Operator);
        let paused = sleeper.place.process().unwrap();
        assert!(paused.signal(Signal::STOP));
        assert_eq!(sleeper.start(By::Peer), Start::Running, "it runs, as far as anyone can tell");
        assert_eq!(sleeper.place.restart(&sleeper.daemon(), By::Peer).unwrap(), Start::Started);
        assert!(!paused.is_running());
        assert_ne!(sleeper.place.process().unwrap(), paused);
    }
}
