//! A separate container engine for one test, which can stop and start it. It does not see the
//! machine's engine.
//!
//! The test runs itself again in its own namespaces for processes, mounts and network. `/run` is a
//! file system in memory there; it has all files of the engine and the test's folders. When the
//! test's process ends, the kernel kills the first process of these namespaces, and everything ends
//! with it: the engine, its containerd, the containers, mounts, networks and files. Only empty
//! control groups are left, and a janitor removes them.
//!
//! The engine inherits its listening socket, as from systemd, so that a restart does not change the
//! socket that nodes have mounted. Clients that connect while it is away wait.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};

use super::janitor::Janitor;
use crate::cluster::wait_for;

/// Names the control group of the engine's containers. Only set inside the namespaces.
const INSIDE: &str = "CORTADO_OWN_ENGINE";
/// The engine's socket, inside.
const SOCKET: &str = "/run/docker.sock";
/// The engine's files, inside.
const FOLDER: &str = "/run/engine";
/// Temporary folders, inside.
const TEMPORARY: &str = "/run/tmp";
/// Seconds that the engine may take to start or to stop: more than the nodes may take.
const LIMIT: u64 = 60;
/// Bytes of the engine's log that a failed test prints.
const LOG_BYTES: usize = 8_000;

/// Programs that the machine must have.
const TOOLS: [&str; 6] = ["docker", "dockerd", "ip", "mount", "setpriv", "unshare"];
/// The first process inside. It stays, to reap orphans.
const INIT: &str = "mount -t tmpfs -o mode=755 none /run && ip link set lo up && \"$@\"; exit $?";
/// Starts the engine, which listens on the socket that it gets as its input.
const DAEMON: &str = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec dockerd -H fd:// \
    --config-file config.json --data-root $PWD/data --exec-root $PWD/exec --pidfile pid";

/// A running engine.
pub struct OwnEngine {
    socket: UnixListener,
    daemon: Child,
}

impl OwnEngine {
    /// Outside, runs the test with this name inside, to its end, and returns `None`. Inside, starts
    /// the engine with these settings. Also returns `None` if this machine can't have a second
    /// engine; the test is then skipped, and standard error says so.
    ///
    /// # Panics
    /// If the test failed inside, or the engine does not start, like all methods here.
    #[must_use]
    pub fn inside(test: &str, settings: &[(&str, Value)]) -> Option<Self> {
        if let Ok(control_group) = std::env::var(INSIDE) {
            return Some(Self::first(&control_group, settings));
        }
        match missing() {
            None => run_inside(test),
            Some(why) => eprintln!("skipped: this machine can't have an engine for a test: {why}"),
        }
        None
    }

    fn first(control_group: &str, settings: &[(&str, Value)]) -> Self {
        for folder in [FOLDER, TEMPORARY] {
            fs::create_dir(folder).expect("/run is ours");
        }
        let socket = UnixListener::bind(SOCKET).expect("/run is ours");
        fs::set_permissions(SOCKET, Permissions::from_mode(0o666)).expect("it is ours");
        configure(control_group, settings);
        let daemon = start(&socket);
        let mut engine = Self { socket, daemon };
        engine.await_answer();
        engine
    }

    /// Stops the engine, calls `meanwhile`, and starts the engine again, also after a panic,
    /// because the cleanup needs it. Returns when the engine answers. Prints the times.
    pub fn restart<T>(&mut self, meanwhile: impl FnOnce() -> T) -> T {
        self.end_and_start("restarted", Signal::TERM, meanwhile)
    }

    /// Like [`Self::restart`], but kills the engine (SIGKILL).
    pub fn crash<T>(&mut self, meanwhile: impl FnOnce() -> T) -> T {
        self.end_and_start("killed and started", Signal::KILL, meanwhile)
    }

    fn end_and_start<T>(&mut self, what: &str, signal: Signal, meanwhile: impl FnOnce() -> T) -> T {
        struct Starting<'a>(&'a mut OwnEngine);
        impl Drop for Starting<'_> {
            fn drop(&mut self) {
                self.0.daemon = start(&self.0.socket);
                self.0.await_answer();
            }
        }
        let began = Instant::now();
        self.signal(signal);
        wait_for("the engine to stop", LIMIT, || self.daemon.try_wait().expect("it is ours"));
        let stopped = began.elapsed();
        let starting = Starting(self);
        let result = meanwhile();
        let away = began.elapsed();
        drop(starting);
        println!(
            "the engine is {what}: ended after {:.2} s, started after {:.2} s, answers after {:.2} s",
            stopped.as_secs_f32(),
            away.as_secs_f32(),
            began.elapsed().as_secs_f32()
        );
        result
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.daemon), signal).expect("the engine runs");
    }

    fn await_answer(&mut self) {
        wait_for("the engine to answer", LIMIT, || {
            let ended = self.daemon.try_wait().expect("it is ours");
            assert!(ended.is_none(), "the engine has ended: {ended:?}\n{}", log());
            ping()
        });
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the engine's log\n{}", log());
        }
    }
}

/// Why this machine can't have a second engine, if so.
fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("this is not root".into());
    }
    let is_there = |tool: &&&str| {
        let mut look = Command::new("sh");
        let look = look.args(["-c", "command -v \"$0\"", tool]).stdout(Stdio::null());
        look.status().is_ok_and(|status| status.success())
    };
    if let Some(tool) = TOOLS.iter().find(|tool| !is_there(tool)) {
        return Some(format!("there is no {tool}"));
    }
    let tried = namespaces(&["true"]).stderr(Stdio::piped()).output();
    let tried = tried.expect("it was there");
    let said = String::from_utf8_lossy(&tried.stderr);
    (!tried.status.success()).then(|| format!("no namespaces: {}", said.trim_end()))
}

/// A command inside. It is killed with everything inside when this thread ends.
fn namespaces(command: &[&str]) -> Command {
    let mut inside = Command::new("setpriv");
    inside
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "sh", "-c", INIT, "sh"])
        .args(command)
        .stdin(Stdio::null());
    inside
}

fn run_inside(test: &str) {
    let control_group = format!("cortado-test-{}", std::process::id());
    let _janitor = Janitor::of_control_groups(&control_group);
    let program = std::env::current_exe().expect("a running program has a path");
    let program = program.to_str().expect("paths of tests are UTF-8");
    let mut inside = namespaces(&[program, "--exact", test, "--nocapture"]);
    for other in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        inside.env_remove(other);
    }
    inside.env("DOCKER_HOST", format!("unix://{SOCKET}")).env("TMPDIR", TEMPORARY);
    let status = inside.env(INSIDE, &control_group).status().expect("it was there");
    assert!(status.success(), "the test failed inside: {status}");
}

fn configure(control_group: &str, settings: &[(&str, Value)]) {
    let mut all = json!({
        "cgroup-parent": format!("/{control_group}"),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    });
    for (name, value) in settings {
        all[*name] = value.clone();
    }
    fs::write(format!("{FOLDER}/config.json"), all.to_string()).expect("the folder is ours");
}

fn start(socket: &UnixListener) -> Child {
    let log = File::options().create(true).append(true).open(format!("{FOLDER}/log"));
    let log = log.expect("the folder is ours");
    let socket = OwnedFd::from(socket.try_clone().expect("a socket can be shared"));
    let mut daemon = Command::new("sh");
    daemon.args(["-c", DAEMON]).current_dir(FOLDER).stdin(socket);
    daemon.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
    daemon.spawn().expect("a shell can be started")
}

/// Whether the engine answers.
fn ping() -> Option<()> {
    let mut engine = UnixStream::connect(SOCKET).ok()?;
    engine.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    engine.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = [0; 15];
    engine.read_exact(&mut answer).ok()?;
    answer.ends_with(b" 200 OK").then_some(())
}

/// The end of the engine's log.
fn log() -> String {
    let log = fs::read(format!("{FOLDER}/log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES)..]).into_owned()
}
