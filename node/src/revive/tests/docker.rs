//! Containers that only sleep, on this machine's Docker engine.

use std::process::{Command, Stdio};

use super::*;

/// If this variable is `1`, the tests fail on a machine without an engine.
const REQUIRED: &str = "CORTADO_REQUIRE_DOCKER";
/// Makes an image from the system's shell, `sleep` and their libraries. It downloads nothing.
const IMAGE: &str = r"
    cd $(mktemp -d) && trap 'rm -rf $PWD' EXIT
    files=$({ echo /bin/sh; echo /bin/sleep; ldd /bin/sh; ldd /bin/sleep; } | grep -o '/[^ ]*' | sort -u)
    cp -L --parents -t . $files && tar -c . | docker import - $0";
/// A daemon that does nothing, and ends with exit code 0 on SIGTERM.
const DAEMON: &str = r#"trap "exit 0" TERM; while :; do sleep 60 & wait; done"#;

/// A container. Image, container and cluster have the same name.
struct Containers(String);

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn docker(arguments: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(arguments))
}

impl Containers {
    /// `None` if there is no engine; standard error says so.
    fn new() -> Option<Self> {
        if let Err(why) = docker(&["version"]) {
            let required = std::env::var_os(REQUIRED).is_some_and(|value| value == "1");
            assert!(!required, "{REQUIRED}=1, but no container engine answers: {why}");
            eprintln!("skipped: no container engine answers: {why}");
            return None;
        }
        let bench = Self(format!("cortado-contract-{}-{}", std::process::id(), unix_ms()));
        run(Command::new("sh").args(["-ec", IMAGE, &bench.0])).unwrap();
        let name = bench.0.as_str();
        let label = format!("cortado.cluster={name}");
        let create = ["create", "--name", name, "--network", "none", "--label", &label];
        let command = ["--label", "cortado.node=node-1", name, "/bin/sh", "-c", DAEMON];
        docker(&[&create[..], &command].concat()).unwrap();
        Some(bench)
    }

    fn reviver_of(cluster: &str) -> Arc<dyn Reviver> {
        let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".into());
        Arc::new(DockerReviver::new(&host, cluster))
    }
}

impl Bench for Containers {
    fn reviver(&self) -> Arc<dyn Reviver> {
        Self::reviver_of(&self.0)
    }

    fn node(&self) -> NodeId {
        id("node-1")
    }

    fn run(&self, _: NodeId) -> Option<String> {
        let state = docker(&["inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", &self.0]);
        state.unwrap().strip_prefix("true ").map(str::to_owned)
    }

    fn kill(&self, node: NodeId) {
        docker(&["kill", &self.0]).unwrap();
        assert_eq!(self.run(node), None);
    }

    fn pause(&self, _: NodeId) {
        docker(&["pause", &self.0]).unwrap();
    }

    fn stop(&self, _: NodeId) {
        docker(&["stop", &self.0]).unwrap();
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let _ = docker(&["rm", "-f", &self.0]);
        let _ = docker(&["image", "rm", &self.0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_keep_the_contract() {
    let Some(bench) = Containers::new() else { return };
    contract(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_other_clusters_are_not_touched() {
    let Some(bench) = Containers::new() else { return };
    let (reviver, node) = (Containers::reviver_of("cortado-contract"), bench.node());
    assert_eq!(reviver.inspect(node).await, Evidence::Unknown);
    assert!(reviver.start(node).await.is_err());
    assert!(reviver.restart(node).await.is_err());
    assert_eq!(bench.run(node), None);
}
