//! Processes that another command may have started. A recycled process id is never signalled: a
//! process is identified by its id *and* start time (field 22 of `/proc/PID/stat`, see proc(5)),
//! and signalled through a pidfd that was opened before the start time was compared.
//! [`Place`](crate::Place), the command line and the process reviver use it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often a process is checked while its end is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process, identified for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// The process id.
    pub pid: i32,
    /// Its start time, in clock ticks since the machine started.
    pub start: u64,
}

/// The stored record of a process: its identity, and the folder that it was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pid: i32,
    start: u64,
    /// Device and inode number of the folder; files of earlier versions have none.
    pub(crate) folder: Option<(u64, u64)>,
}

impl Record {
    pub(crate) const fn new(process: ProcessId, folder: Option<(u64, u64)>) -> Self {
        Self { pid: process.pid, start: process.start, folder }
    }

    pub(crate) const fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start: self.start }
    }

    /// Reads a file that [`Self::save`] wrote.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        toml::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// Writes the record to a file, replacing an earlier one.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        let text = toml::to_string(self).map_err(std::io::Error::other)?;
        // Each writer has its own temporary file: the process and its starter may write at the same
        // moment.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&temporary, text)?;
        fs::rename(&temporary, path)
    }
}

/// The fields of `/proc/PID/stat` that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    /// Threads that have not ended. The first one counts until the parent has waited for it.
    threads: u64,
    start: u64,
}

impl Stat {
    /// Whether only the exit code is left. The first thread may end before the others: until they
    /// have ended too, they hold the process's files and locks.
    const fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }
}

impl ProcessId {
    /// The living process with this id.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = stat(pid)?;
        Some(Self { pid, start: stat.start })
    }

    /// Whether it runs or is stopped by a signal. A process that has ended and was not waited for
    /// does not run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.ended())
    }

    /// Whether it is stopped (SIGSTOP).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && stat.state == 'T')
    }

    /// Sends a signal; returns whether the process was there.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_running() && pidfd_send_signal(handle, signal).is_ok()
    }

    /// Waits for the process to end; returns whether it ended within `limit`.
    #[must_use]
    pub fn wait_end(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name (field 2) may contain any character, so fields are counted from its last parenthesis.
fn parse(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 3 was the state; 20 is the number of threads, 22 the start time.
    let threads = fields.nth(20 - 4)?.parse().ok()?;
    let start = fields.nth(22 - 21)?.parse().ok()?;
    Some(Stat { state, threads, start })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let rest = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let text = format!("77 (a) S (b) R) T {rest} 4242 23 24");
        assert_eq!(parse(&text), Some(Stat { state: 'T', threads: 20, start: 4242 }));
        assert_eq!(parse("77 (a"), None);
        assert_eq!(parse("77 (a) S 1 2"), None);
    }

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let stat = |state, threads| Stat { state, threads, start: 1 };
        assert!(!stat('S', 1).ended() && !stat('T', 4).ended());
        assert!(!stat('Z', 2).ended(), "a thread is still closing files");
        assert!(stat('Z', 1).ended() && stat('X', 0).ended());
    }

    #[test]
    fn a_recycled_id_is_neither_running_nor_signalled() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let recycled = ProcessId { start: process.start + 1, ..process };
        assert!(process.is_running() && !recycled.is_running());
        assert!(!recycled.signal(Signal::KILL));
        assert!(process.is_running());
        assert!(process.signal(Signal::KILL));
        // The child was not waited for: a zombie counts as ended.
        assert!(process.wait_end(Duration::from_secs(10)));
        child.wait().unwrap();
        assert!(!process.signal(Signal::KILL));
    }

    #[test]
    fn a_pid_file_round_trips_and_a_broken_one_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let record = Record::new(ProcessId { pid: 7, start: 99 }, Some((1, 2)));
        record.save(&path).unwrap();
        assert_eq!(Record::load(&path), Some(record));
        fs::write(&path, "pid = 7\nstart = 99\n").unwrap();
        assert_eq!(Record::load(&path), Some(Record { folder: None, ..record }));
        fs::write(&path, "12345\n").unwrap();
        assert_eq!(Record::load(&path), None);
    }
}
