//! Takes a cluster's containers, networks and volumes away when the test ends, however it ends.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits for the end of its input, which comes at the latest with the end of the test's process, and
/// clears up then. All that is removed has the project's label. Nodes may bring each other back
/// meanwhile, so it takes as many rounds as it takes.
const SCRIPT: &str = r#"
ours="--filter label=com.docker.compose.project=$0"
read -r _
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

/// A process of its own, so that it outlives a test that is killed. Dropping it clears up at once.
pub(super) struct Janitor {
    child: Child,
    input: Option<ChildStdin>,
}

impl Janitor {
    /// For all that compose makes for a project.
    pub(super) fn of(project: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, project])
            // A signal to the test's group is not for it.
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
        assert!(cleared || std::thread::panicking(), "the containers of a test are left behind");
    }
}
