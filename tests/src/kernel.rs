//! Faults that the kernel makes: ports that drop datagrams, a frozen disk, a crowded processor. A
//! test with such faults runs in its own network and mount namespaces, with only a loopback
//! interface, so that the faults hit nothing else.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::cluster::{Cluster, path_text};

/// Set for the process that runs in the namespaces.
const INSIDE: &str = "CORTADO_TEST_INSIDE";
/// Programs that such tests call.
const TOOLS: [&str; 8] =
    ["fsfreeze", "ip", "mkfs.ext4", "mount", "nft", "setsid", "taskset", "unshare"];
/// The table of the packet filters.
const TABLE: &str = "cortado_test";

/// Runs the test of this name again in new namespaces, and runs `body` there. If that is not
/// possible, the test is skipped, and standard error says why.
///
/// # Panics
/// If the test fails in the namespaces.
pub fn in_own_network(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    if let Some(why) = why_not() {
        return eprintln!("SKIPPED: {why}");
    }
    let program = path_text(&env::current_exe().expect("a test has a program"));
    let run = Command::new("unshare")
        .args(["--net", "--mount", &program, "--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(run.is_ok_and(|status| status.success()), "{test} failed in its own network");
}

/// Why this machine can't run such a test, if so.
fn why_not() -> Option<String> {
    let is_there = |tool: &&str| {
        env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(tool).is_file())
    };
    if let Some(missing) = TOOLS.into_iter().find(|tool| !is_there(tool)) {
        return Some(format!("{missing} is missing"));
    }
    // Tries everything that the tests need, in a namespace that ends at once.
    let script = format!(
        "ip link set lo up && nft add table inet {TABLE} && nft list tables >/dev/null &&
         image=$(mktemp) && truncate -s 8M \"$image\" && mkfs.ext4 -q \"$image\" &&
         folder=$(mktemp -d) && mount -o loop \"$image\" \"$folder\" && fsfreeze -f \"$folder\" &&
         fsfreeze -u \"$folder\" && umount \"$folder\"; code=$?;
         rm -f \"$image\"; rmdir \"$folder\"; exit $code"
    );
    let tried = Command::new("unshare").args(["--net", "--mount", "sh", "-c", &script]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Runs a program to its end.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the tool is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

/// The direction of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Drops datagrams to the port.
    In,
    /// Drops datagrams to and from the port.
    Both,
}

/// A packet filter of the kernel. Dropping it removes the filter.
#[derive(Debug)]
pub struct Filter(());

impl Filter {
    /// Drops the datagrams of a port.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn port(port: u16, way: Way) -> Self {
        let mut rules = format!("udp dport {port} drop;");
        if way == Way::Both {
            rules += &format!(" udp sport {port} drop;");
        }
        let text = format!(
            "table inet {TABLE} {{\nchain input {{\ntype filter hook input priority 0;\n{rules}\n}}\n}}"
        );
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft is there");
        let mut stdin = nft.stdin.take().expect("it is piped");
        stdin.write_all(text.as_bytes()).expect("nft reads");
        drop(stdin);
        assert!(nft.wait().is_ok_and(|status| status.success()), "nft refuses {text}");
        Self(())
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", TABLE]).status();
    }
}

/// A frozen file system. Dropping it unfreezes the file system, and so does the death of the test:
/// a process that can't end would block all that wait for it.
#[derive(Debug)]
pub struct Frozen(Child);

impl Frozen {
    /// Freezes the disk of a node.
    ///
    /// # Panics
    /// If the node has no disk of its own.
    #[must_use]
    pub fn disk(cluster: &Cluster, name: &str) -> Self {
        let folder = path_text(&data(cluster, name));
        // The guard waits for the end of its input, which comes when this process ends.
        let guard = Command::new("setsid")
            .args(["sh", "-c", "cat >/dev/null; fsfreeze -u \"$1\"", "guard", &folder])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell is there");
        let frozen = Self(guard);
        run("fsfreeze", &["-f", &folder]);
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Restricts a node to one core that busy processes share. Dropping it gives the node all cores
/// again.
#[derive(Debug)]
pub struct Crowded {
    others: Vec<Child>,
    process: String,
}

impl Crowded {
    /// Puts a node and so many busy processes on the first core.
    ///
    /// # Panics
    /// If the node does not run.
    #[must_use]
    pub fn core(cluster: &Cluster, name: &str, others: usize) -> Self {
        let process = cluster.process(name).expect("the node runs").pid.to_string();
        let busy = || {
            let mut busy = Command::new("taskset");
            busy.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
            busy.spawn().expect("taskset is there")
        };
        run("taskset", &["-a", "-c", "-p", "0", &process]);
        Self { others: (0..others).map(|_| busy()).collect(), process }
    }
}

impl Drop for Crowded {
    fn drop(&mut self) {
        for other in &mut self.others {
            let _ = other.kill().and_then(|()| other.wait());
        }
        let all = ["-a", "-p", "ffffffff", &self.process];
        let _ = Command::new("taskset").args(all).stdout(Stdio::null()).status();
    }
}

fn data(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.dir().join(name).join("data")
}

impl Cluster {
    /// Gives each node its own file system for its data, which can be frozen.
    ///
    /// # Panics
    /// If a file system can't be made.
    pub fn move_to_own_disks(&self) {
        self.local("down").run().ok();
        for node in self.nodes() {
            let name = node.name().to_string();
            let (folder, image) = (data(self, &name), node.path().join("disk.image"));
            let (at, image) = (path_text(&folder), path_text(&image));
            run("truncate", &["-s", "1G", &image]);
            run("mkfs.ext4", &["-q", "-m", "0", &image]);
            let aside = format!("{at}.aside");
            std::fs::rename(&folder, &aside)
                .and_then(|()| std::fs::create_dir(&folder))
                .expect(&at);
            run("mount", &["-o", "loop", &image, &at]);
            run("rmdir", &[&format!("{at}/lost+found")]);
            run("cp", &["-a", &format!("{aside}/."), &at]);
        }
        self.local("up").run().ok();
    }
}
