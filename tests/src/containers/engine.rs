//! The container engine of this machine, used through its command line, as users do.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The engine's socket, unless `DOCKER_HOST` names another.
const SOCKET: &str = "/var/run/docker.sock";
/// If this variable is `1`, the tests fail on a machine without an engine.
const REQUIRED: &str = "CORTADO_REQUIRE_DOCKER";

/// Groups of sockets that every compose file names.
const USUAL_GROUPS: [u32; 4] = [0, 105, 998, 999];

/// An engine that answers.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    /// `docker compose` or `docker-compose`.
    compose: &'static [&'static str],
    /// Its socket.
    pub(super) socket: PathBuf,
}

impl Engine {
    /// Finds an engine. Returns `None` if there is none; standard error says so.
    ///
    /// # Panics
    /// If there is no engine and [`REQUIRED`] is set.
    pub(super) fn find() -> Option<Self> {
        match Self::look() {
            Ok(engine) => Some(engine),
            Err(why) if env::var_os(REQUIRED).is_some_and(|value| value == "1") => {
                panic!("{REQUIRED}=1, but {why}")
            }
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    fn look() -> Result<Self, String> {
        try_docker(&["version", "--format", "{{.Server.Version}}"])
            .map_err(|why| format!("no container engine answers: {why}"))?;
        let host = env::var("DOCKER_HOST").unwrap_or_default();
        let socket = PathBuf::from(host.strip_prefix("unix://").unwrap_or(SOCKET));
        if !socket.exists() {
            return Err(format!("the engine has no socket at {}", socket.display()));
        }
        let answers = |compose: &&&[&str]| run(command(compose).arg("version")).is_ok();
        let known: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let compose = known.iter().find(answers).copied();
        let compose = compose.ok_or("there is neither `docker compose` nor `docker-compose`")?;
        Ok(Self { compose, socket })
    }

    /// The beginning of a `docker compose` command.
    pub(super) fn compose(&self) -> Command {
        let mut compose = command(self.compose);
        let socket = std::fs::metadata(&self.socket).expect("it was there");
        if !USUAL_GROUPS.contains(&socket.gid()) {
            compose.env("DOCKER_GID", socket.gid().to_string());
        }
        compose
    }
}

fn command(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a program");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs a command to its end and returns its output.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what}: {}: {}", output.status, errors.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs `docker ARGUMENTS`, and returns its output.
pub(super) fn try_docker(arguments: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(arguments))
}

/// Runs `docker ARGUMENTS`, which must succeed, and returns its output.
pub(super) fn docker(arguments: &[&str]) -> String {
    try_docker(arguments).unwrap_or_else(|why| panic!("{why}"))
}
