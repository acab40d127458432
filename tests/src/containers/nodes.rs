//! The nodes of a cluster as containers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::engine::{Engine, docker, run};
use super::janitor::Janitor;
use super::proxy::EngineProxy;
use super::repository::repository;
use super::{engine, image, proxy};
use crate::cluster::{Client, Coffee, Turn, path_text, wait_for};

/// `scripts/compose.sh`, independent of this process's environment.
fn compose_script() -> Command {
    let mut script = Command::new(repository().join("scripts/compose.sh"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    script.env_clear().env("PATH", path);
    script
}

/// The output of `scripts/compose.sh` for so many nodes, and the file in the repository.
///
/// # Panics
/// If the script fails, or there is no such file.
#[must_use]
pub fn compose_files(nodes: usize) -> [String; 2] {
    let mut script = compose_script();
    script.arg(nodes.to_string()).env("COMPOSE_FILE", "-");
    let written = run(&mut script).unwrap_or_else(|why| panic!("{why}"));
    let kept = std::fs::read_to_string(repository().join("docker-compose.yml"));
    [written, kept.expect("the repository has a compose file").trim_end().to_owned()]
}

/// Lines of each node's log that a failed test prints.
const LOG_LINES: &str = "40";
/// Distance between the published ports of two nodes in the compose file.
const PORT_STEP: u16 = 10;
/// Seconds until a cluster is whole, at its start or after a fault.
pub(super) const WHOLE: u64 = 60;

/// A cluster of containers in a folder of its own.
pub struct Containers {
    // The fields are dropped in this order.
    pub(super) proxy: Option<EngineProxy>,
    pub(super) _janitor: Janitor,
    pub(super) root: tempfile::TempDir,
    pub(super) _turn: Turn,
    pub(super) client: Client,
    pub(super) engine: Engine,
    /// Name of the cluster and of the compose project.
    pub(super) name: String,
    pub(super) nodes: usize,
    pub(super) first_port: u16,
}

/// The state of a node's container, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// Time of its last start: with the id, this identifies a run.
    pub started: String,
    /// `running`, `exited`, `paused` …
    pub status: String,
    /// Exit code of its last end.
    pub exit_code: i64,
    /// Its address in the cluster's network; empty if it has none.
    pub address: String,
    /// Seconds that it may take to stop.
    pub stop_seconds: Option<i64>,
    /// Whether its rights are minimal: not root, only its volume is writable, no capabilities, and
    /// no way to get any.
    pub confined: bool,
}

impl Containers {
    /// Starts a cluster; `None` if there is no engine.
    ///
    /// # Panics
    /// If the cluster does not start, like all methods here: a test can't continue then.
    #[must_use]
    pub fn up(nodes: usize) -> Option<Self> {
        let mut cluster = Self::prepare(nodes)?;
        let socket = cluster.engine.socket.clone();
        cluster.make(&socket, "");
        Some(cluster)
    }

    /// Starts a cluster that reaches the engine through a proxy that can be closed.
    #[must_use]
    pub fn up_behind_proxy(nodes: usize) -> Option<Self> {
        let mut cluster = Self::prepare(nodes)?;
        let proxy = EngineProxy::open_in(&cluster.path("engine"), &cluster.engine.socket);
        let setting = format!("docker_host = 'unix:///var/run/docker.sock/{}'\n", proxy::SOCKET);
        let folder = proxy.folder().to_owned();
        cluster.proxy = Some(proxy);
        cluster.make(&folder, &setting);
        Some(cluster)
    }

    pub(super) fn prepare(nodes: usize) -> Option<Self> {
        let engine = Engine::find()?;
        let turn = Turn::take();
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("cortado-test-{}-{}", std::process::id(), since.as_millis());
        Some(Self {
            proxy: None,
            _janitor: Janitor::of(&name),
            client: Client::new(root.path()),
            root,
            _turn: turn,
            engine,
            name,
            nodes,
            first_port: free_ports(nodes),
        })
    }

    /// Writes the compose file and starts the nodes, with `settings` in their configuration.
    pub(super) fn make(&mut self, socket: &Path, settings: &str) {
        let image = image::ensure();
        // The files in it get the owner of this folder.
        std::fs::create_dir(self.dir()).expect("a folder can be made");
        let mut script = compose_script();
        script
            .arg(self.nodes.to_string())
            .env("COMPOSE_DIR", self.dir())
            .env("COMPOSE_FILE", self.file())
            .env("CLUSTER_NAME", &self.name)
            .env("FIRST_PORT", self.first_port.to_string())
            .env("HTTP_PORT", (self.first_port + 1).to_string())
            .env("DOCKER_SOCKET", socket)
            .env("IMAGE", image);
        run(&mut script).unwrap_or_else(|why| panic!("{why}"));
        if !settings.is_empty() {
            let _ = self.compose(&["up", "init"]);
            for name in self.names() {
                let file = self.dir().join(name).join("node.toml");
                let text = std::fs::read_to_string(&file).expect("a node has a configuration");
                std::fs::write(&file, format!("{settings}{text}")).expect("it can be written");
            }
        }
        self.start_all();
    }

    /// Runs `docker compose up`, and waits until the cluster is whole.
    pub fn start_all(&self) {
        let _ = self.compose(&["up", "-d"]);
        self.await_whole();
    }

    /// The text that `docker compose up` prints before the nodes start.
    #[must_use]
    pub fn greeting(&self) -> String {
        self.compose(&["logs", "--no-color", "init"])
    }

    pub(super) fn file(&self) -> PathBuf {
        self.root.path().join("docker-compose.yml")
    }

    /// Runs `docker compose ARGUMENTS` for this cluster.
    pub(super) fn compose(&self, arguments: &[&str]) -> String {
        let mut compose = self.engine.compose();
        compose.args(arguments).env("COMPOSE_FILE", self.file());
        compose.env("COMPOSE_PROJECT_NAME", &self.name).current_dir(self.root.path());
        run(&mut compose).unwrap_or_else(|why| panic!("{why}"))
    }

    /// All nodes, running or not.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("node-{number}")).collect()
    }

    /// The address of a node for clients on this machine.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let number: u16 = name.trim_start_matches("node-").parse().expect("a node's name");
        format!("127.0.0.1:{}", self.first_port + PORT_STEP * (number - 1))
    }

    /// The states of all containers.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, State> {
        let ours = format!("label=cortado.cluster={}", self.name);
        let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &ours]);
        let inspect: Vec<_> = std::iter::once("inspect").chain(ids.lines()).collect();
        if inspect.len() == 1 {
            return BTreeMap::new();
        }
        let found: Value = serde_json::from_str(&docker(&inspect)).expect("docker prints JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = |found: &Value| {
            let network = &found["NetworkSettings"]["Networks"][self.network()];
            let state = State {
                id: text(&found["Id"]),
                started: text(&found["State"]["StartedAt"]),
                status: text(&found["State"]["Status"]),
                exit_code: found["State"]["ExitCode"].as_i64().unwrap_or_default(),
                address: text(&network["IPAddress"]),
                stop_seconds: found["Config"]["StopTimeout"].as_i64(),
                confined: is_confined(found),
            };
            (text(&found["Config"]["Labels"]["cortado.node"]), state)
        };
        found.as_array().expect("a list").iter().map(state).collect()
    }

    /// The state of a node's container.
    #[must_use]
    pub fn state(&self, name: &str) -> State {
        self.states().remove(name).unwrap_or_else(|| panic!("{name} has no container"))
    }

    /// The containers' network.
    pub(super) fn network(&self) -> String {
        format!("{}_default", self.name)
    }

    /// The JSON output of a command at one node.
    pub(super) fn ask(&self, name: &str, arguments: &[&str]) -> Option<Value> {
        let address = self.address(name);
        // A call that fails is repeated by the caller, so it must not take the 30 s of a client.
        let look = self.cortado(arguments).args(&["--json", "--connect", &address]);
        let asked = look.args(&["--timeout", "3"]).run();
        (asked.code == Some(0)).then(|| asked.json())
    }

    /// The members that a node sees alive, with their generations.
    pub(super) fn view(&self, name: &str) -> Option<BTreeMap<String, u64>> {
        let nodes = self.ask(name, &["nodes"]).filter(|nodes| nodes["answered_by"] == name)?;
        let alive = nodes["members"].as_array()?.iter().filter(|m| m["state"] == "alive");
        let named = alive.map(|m| Some((m["id"].as_str()?.to_owned(), m["generation"].as_u64()?)));
        named.collect()
    }

    /// Waits until all running nodes have the same view: exactly the running nodes alive, in their
    /// present runs.
    pub fn await_whole(&self) {
        wait_for("all running nodes to see the same", WHOLE, || {
            let states = self.states().into_iter();
            let running = states.filter(|(_, state)| state.status == "running");
            let running: Vec<String> = running.map(|(name, _)| name).collect();
            let views: Option<Vec<_>> = std::thread::scope(|scope| {
                let asking: Vec<_> =
                    running.iter().map(|name| scope.spawn(|| self.view(name))).collect();
                asking.into_iter().map(|asking| asking.join().ok()?).collect()
            });
            let views = views?;
            let whole = views.first()?.keys().eq(&running);
            (whole && views.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
        });
    }

    /// Checks the reports of a job, fetched from one node only.
    pub fn check_result(&self, data: &Coffee, job: &str, name: &str) {
        let folder = self.path(&format!("{job}-by-{name}"));
        let (out, address) = (path_text(&folder), self.address(name));
        let _ = self.cortado(&["result", job, "--out", &out, "--connect", &address]).run().ok();
        data.check_reports(&folder);
    }

    /// Waits until every running node reports that all entries have reached their owners.
    pub fn await_moves(&self) {
        for (name, _) in self.states().iter().filter(|(_, state)| state.status == "running") {
            wait_for(&format!("{name} to have moved everything"), WHOLE, || {
                let ring = self.ask(name, &["ring"])?;
                ring["moves"].as_array()?.is_empty().then_some(())
            });
        }
    }
}

impl Deref for Containers {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let ours = format!("label=cortado.cluster={}", self.name);
        let all = engine::try_docker(&["ps", "-a", "--filter", &ours, "--format", "{{.Names}}"]);
        for name in all.unwrap_or_default().lines() {
            let mut logs = Command::new("docker");
            let logs = logs.args(["logs", "--tail", LOG_LINES, name]).output();
            let text = logs.map(|logs| String::from_utf8_lossy(&logs.stderr).into_owned());
            eprintln!("--- end of the log of {name}\n{}", text.unwrap_or_default());
        }
    }
}

/// Reads the rights from the output of `docker inspect`.
fn is_confined(found: &Value) -> bool {
    let host = &found["HostConfig"];
    let root = found["Config"]["User"].as_str().is_none_or(|user| {
        user.is_empty() || user.split(':').any(|part| part == "0" || part == "root")
    });
    !root
        && host["ReadonlyRootfs"] == true
        && host["Privileged"] == false
        && host["CapDrop"] == serde_json::json!(["ALL"])
        && host["CapAdd"].is_null()
        && host["SecurityOpt"] == serde_json::json!(["no-new-privileges:true"])
}

/// The first of the nodes' published ports, all of which are free at the moment.
fn free_ports(nodes: usize) -> u16 {
    wait_for("free ports", 10, || {
        let bind = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let socket = bind(0)?;
        let first = socket.local_addr().ok()?.port();
        let last = u16::try_from(nodes).ok()?.checked_mul(PORT_STEP)?.checked_add(first)?;
        let others = (first..last).step_by(PORT_STEP.into()).skip(1);
        others.map(bind).collect::<Option<Vec<_>>>().map(|_| first)
    })
}
