//! Memory and processors that this process may use.

use std::path::Path;
use std::time::Duration;

/// Memory that this process may use, in bytes: the machine's, or its control group's if that is
/// less. `None` if neither can be read.
#[must_use]
pub fn memory() -> Option<u64> {
    memory_below(Path::new("/"))
}

/// Processors that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the system says of this process.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Its processor time.
    pub cpu: Duration,
    /// Its resident memory, in bytes.
    pub resident: u64,
    /// Its open files.
    pub files: u64,
    /// Its threads.
    pub threads: u64,
}

impl Process {
    /// As of now; `None` if the system does not say (proc(5)).
    #[must_use]
    pub fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may have spaces.
        let fields: Vec<u64> = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        let ticks = fields.get(10)? + fields.get(11)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let page = rustix::param::page_size() as u64;
        Some(Self {
            cpu: Duration::from_millis(ticks.saturating_mul(1000) / per_second),
            resident: fields.get(20)?.saturating_mul(page),
            files: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            threads: *fields.get(16)?,
        })
    }
}

/// Files with the limits of control groups, versions 2 and 1 (kernel documentation, admin-guide),
/// as a container sees its own group.
const LIMITS: [&str; 2] =
    ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];

fn memory_below(root: &Path) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let machine = read("proc/meminfo").and_then(|text| total(&text));
    // Without a limit, the file has "max" or a number beyond any machine.
    let limits = LIMITS.iter().filter_map(|file| read(file)?.trim().parse().ok());
    machine.into_iter().chain(limits).min()
}

/// Parses `MemTotal:       24689764 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(memory_below(root.path()), None);
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:        2097152 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_below(root.path()), Some(2 << 30));
        write(LIMITS[0], "max\n");
        assert_eq!(memory_below(root.path()), Some(2 << 30));
        write(LIMITS[1], "9223372036854771712\n");
        assert_eq!(memory_below(root.path()), Some(2 << 30));
        write(LIMITS[0], "314572800\n");
        assert_eq!(memory_below(root.path()), Some(300 << 20));
    }

    #[test]
    fn this_machine_says_how_much_it_has() {
        assert!(memory().is_some_and(|bytes| bytes > 64 << 20));
        let process = Process::now().unwrap();
        assert!(process.resident > 1 << 20 && process.resident < 1 << 40);
        assert!(process.files > 2 && process.threads >= 1);
    }
}
