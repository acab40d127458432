//! Removes everything that a test made on the machine when the test ends, in whatever way.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Removes a cluster's containers, networks and volumes, all by the project's label. Nodes may
/// bring each other back meanwhile, so it takes several rounds.
const PROJECT: &str = r#"
ours="--filter label=com.docker.compose.project=$0"
for round in 1 2 3 4 5 6 7 8 9 10; do
    containers=$(docker ps -aq $ours) || exit 1
    [ -z "$containers" ] || docker rm -f -v $containers
    networks=$(docker network ls -q $ours)
    [ -z "$networks" ] || docker network rm $networks
    volumes=$(docker volume ls -q $ours)
    [ -z "$volumes" ] || docker volume rm $volumes
    [ -n "$containers$networks$volumes" ] || exit 0
done
exit 1
"#;

/// Removes the control groups below one of this name. None can be removed while its processes end.
const CONTROL_GROUPS: &str = r#"
for round in $(seq 100); do
    ours=$(find /sys/fs/cgroup -maxdepth 2 -name "$0")
    [ -n "$ours" ] || exit 0
    find $ours -depth -type d -exec rmdir {} +
    sleep 0.1
done
exit 1
"#;

/// A separate process, which outlives a killed test. Dropping it makes it clean up at once.
pub(super) struct Janitor {
    child: Child,
    input: Option<ChildStdin>,
}

impl Janitor {
    /// Cleans up everything that compose makes for a project.
    pub(super) fn of(project: &str) -> Self {
        Self::start(PROJECT, project)
    }

    /// Cleans up the control groups that an engine makes below this one.
    pub(super) fn of_control_groups(parent: &str) -> Self {
        Self::start(CONTROL_GROUPS, parent)
    }

    /// The process waits for the end of its input, which comes at the latest when the test's
    /// process ends, and then cleans up.
    fn start(script: &str, what: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read -r _\n{script}"), what])
            // A signal to the test's process group must not end it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be started");
        let input = child.stdin.take();
        Self { child, input }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.input.take());
        let cleared = self.child.wait().is_ok_and(|status| status.success());
        assert!(cleared || std::thread::panicking(), "something of a test is left behind");
    }
}
