//! Calls of the program `cortado`, with a time limit and the captured output.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Deadline;

/// Time limit of a command in seconds, unless set otherwise.
const LIMIT_SECONDS: u64 = 60;

/// The folder of the programs. Programs of this crate run there too; its tests run in `deps` below
/// it.
pub(crate) fn programs() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let folder = program.parent().expect("a program lies in a folder");
    let above = folder.parent().filter(|_| folder.ends_with("deps"));
    above.unwrap_or(folder).to_owned()
}

/// The path of the program `cortado`; `cortado-node` is in the same folder.
///
/// # Panics
/// If one of them was not built.
#[must_use]
pub fn program() -> PathBuf {
    for name in ["cortado", "cortado-node"] {
        let path = programs().join(name);
        assert!(
            path.is_file(),
            "{} is missing: run `cargo build --workspace --bins` first",
            path.display()
        );
    }
    programs().join("cortado")
}

/// A path as an argument.
///
/// # Panics
/// If it is not UTF-8.
#[must_use]
pub fn path_text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}

/// A call of `cortado`.
pub struct Cortado {
    command: Command,
    seconds: u64,
}

impl Cortado {
    /// Prepares `cortado ARGUMENTS`, without Cortado's variables in the environment.
    #[must_use]
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        for variable in
            ["CLUSTER", "CONNECT", "TIMEOUT", "UPLOAD_RATE", "NODE", "LOG", "CONFIG", "DATA"]
        {
            command.env_remove(format!("CORTADO_{variable}"));
        }
        // A killed node stays dead, unless the test says otherwise.
        command.env("CORTADO_REVIVER", "none");
        command.args(arguments).stdin(Stdio::null());
        Self { command, seconds: LIMIT_SECONDS }
    }

    /// Prepares `cortado ARGUMENTS` for the cluster with this profile.
    #[must_use]
    pub fn at(profile: &Path, arguments: &[&str]) -> Self {
        Self::new(&["--cluster", &path_text(profile)]).args(arguments)
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Limits the upload to so many bytes per second, so that a fault can hit its middle.
    #[must_use]
    pub fn upload_rate(self, bytes: u64) -> Self {
        self.env("CORTADO_UPLOAD_RATE", bytes.to_string())
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the time limit in seconds.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn spawn(mut self) -> Running {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let stdout = Capture::start(child.stdout.take());
        let stderr = Capture::start(child.stderr.take());
        let what = self.command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>();
        Running {
            what: what.join(" "),
            child,
            stdout,
            stderr,
            deadline: Deadline::after(self.seconds),
            seconds: self.seconds,
        }
    }

    /// Starts the program with a pipe as its standard input.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn piped(mut self) -> (Running, ChildStdin) {
        self.command.stdin(Stdio::piped());
        let mut running = self.spawn();
        let pipe = running.child.stdin.take().expect("its standard input is a pipe");
        (running, pipe)
    }

    /// Starts the program and waits for its end.
    #[must_use]
    pub fn run(self) -> Finished {
        self.spawn().wait()
    }
}

/// The bytes read from a pipe so far.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let reader = pipe.map(|mut pipe| {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes.extend_from_slice(&chunk[..length]);
                }
            })
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// A program that runs. Dropping it kills the program.
pub struct Running {
    what: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
    deadline: Deadline,
    seconds: u64,
}

impl Running {
    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether the program runs.
    ///
    /// # Panics
    /// If the system does not say.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// Sends the program a signal.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "`cortado {}` has ended: {}", self.what, self.stderr());
        // Only this thread waits for the process, so its id is still valid.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child takes signals");
    }

    /// Kills the program (SIGKILL) and waits for its end.
    pub fn kill(mut self) -> Finished {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// If it does not end within its time limit.
    #[must_use]
    pub fn wait(mut self) -> Finished {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            assert!(
                self.deadline.next_look(),
                "`cortado {}` did not end in {} s\nstdout: {}\nstderr: {}",
                self.what,
                self.seconds,
                self.stdout.text(),
                self.stderr.text()
            );
        };
        Finished::new(&self.what, status, self.stdout.finish(), self.stderr.finish())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    what: String,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    fn new(what: &str, status: ExitStatus, stdout: String, stderr: String) -> Self {
        Self { what: what.to_owned(), code: status.code(), stdout, stderr }
    }

    /// Checks that the exit code is 0.
    ///
    /// # Panics
    /// If it is another one.
    pub fn ok(self) -> Self {
        self.exits(0, &[])
    }

    /// Checks the exit code, and that standard error has all these texts.
    ///
    /// # Panics
    /// If one of them differs.
    pub fn exits(self, code: i32, texts: &[&str]) -> Self {
        let told = || format!("`cortado {}`\n{}\n{}", self.what, self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "exit code of {}", told());
        for text in texts {
            assert!(self.stderr.contains(text), "no '{text}' in the errors of {}", told());
        }
        self
    }

    /// Parses standard output as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`cortado {}`: {error} in {}", self.what, self.stdout))
    }

    /// Parses each line of standard output as JSON.
    ///
    /// # Panics
    /// If a line is not JSON.
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).expect("each line is JSON");
        self.stdout.lines().map(parse).collect()
    }
}
