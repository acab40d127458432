//! Nodes as containers of a Docker engine, identified by two labels: `cortado.cluster` and
//! `cortado.node`. Other containers are never touched.
//!
//! Access to the engine gives the rights of root on its host; docs/operations.md says how to
//! restrict it.

mod socket;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerState, ContainerStateStatusEnum, HealthStatusEnum};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, StartContainerOptions,
};
use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::reviver::{ENDS, Pending, Reviver};
use crate::clock::unix_ms;

/// The label with the name of a container's cluster.
const CLUSTER_LABEL: &str = "cortado.cluster";
/// The label with the name of a container's node.
const NODE_LABEL: &str = "cortado.node";
/// Time limit of the engine for the beginning of an answer, in seconds.
const ANSWER_SECONDS: u64 = 20;
/// Time limit for finding out a node's health, which takes three small requests. An engine that
/// hangs answers pending requests when it continues; the limit bounds the cost of a connection that
/// is lost without notice.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for starting a node, also if it must be killed first.
const REVIVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a killed container may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two looks at a killed container.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause before the reviver asks for the engine's events again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Kills and starts containers.
#[derive(Debug)]
pub struct DockerReviver {
    host: String,
    cluster: String,
    look_limit: Duration,
    revive_limit: Duration,
}

impl DockerReviver {
    /// Revives the containers of a cluster on the engine at `host`: `unix:///path` or
    /// `tcp://host:port`.
    #[must_use]
    pub fn new(host: &str, cluster: &str) -> Self {
        let (host, cluster) = (host.to_owned(), cluster.to_owned());
        Self { host, cluster, look_limit: LOOK_LIMIT, revive_limit: REVIVE_LIMIT }
    }

    /// Makes a new client for each use: the engine may have been restarted or upgraded.
    async fn engine(&self) -> Result<Docker, DockerError> {
        let version = bollard::API_DEFAULT_VERSION;
        let engine = if self.host.starts_with("unix://") {
            Docker::connect_with_unix(&self.host, ANSWER_SECONDS, version)
        } else {
            Docker::connect_with_http(&self.host, ANSWER_SECONDS, version)
        };
        engine?.negotiate_version().await
    }

    /// Makes a client within the limit, or says why it fails and what helps.
    async fn engine_in_time(&self) -> Result<Docker, String> {
        match timeout(self.look_limit, self.engine()).await {
            Ok(Ok(engine)) => Ok(engine),
            Ok(Err(error)) => Err(self.obstacle(&error).await),
            Err(_) => Err(hangs(self.look_limit)),
        }
    }

    /// The id of the node's container.
    async fn find(&self, engine: &Docker, node: NodeId) -> Result<String, String> {
        let labels =
            vec![format!("{CLUSTER_LABEL}={}", self.cluster), format!("{NODE_LABEL}={node}")];
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = engine.list_containers(Some(options)).await.map_err(|e| said(&e))?;
        let mut ids = found.into_iter().filter_map(|container| container.id);
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(format!("no container is labelled {NODE_LABEL}={node}")),
            _ => Err(format!("several containers are labelled {NODE_LABEL}={node}")),
        }
    }

    async fn state(&self, engine: &Docker, id: &str) -> Result<ContainerState, String> {
        let inspected = engine.inspect_container(id, None::<InspectContainerOptions>).await;
        let state = inspected.map_err(|error| said(&error))?.state;
        state.ok_or_else(|| "the engine does not say how the container is".to_owned())
    }

    async fn look(&self, node: NodeId) -> Result<Evidence, String> {
        let engine = self.engine().await.map_err(|error| said(&error))?;
        let id = self.find(&engine, node).await?;
        Ok(evidence(&self.state(&engine, &id).await?))
    }

    async fn revive(&self, node: NodeId, kill: bool) -> Result<(), String> {
        let engine = self.engine().await.map_err(|error| said(&error))?;
        let id = self.find(&engine, node).await?;
        // Another supervisor or a person may have acted meanwhile.
        match evidence(&self.state(&engine, &id).await?) {
            Evidence::Retired => return Err("it was stopped on purpose".into()),
            Evidence::Exited => {}
            _ if !kill => return Ok(()),
            _ => self.end(&engine, &id).await?,
        }
        match engine.start_container(&id, None::<StartContainerOptions>).await {
            // 304: it runs already.
            Err(DockerError::DockerResponseServerError { status_code: 304, .. }) | Ok(()) => Ok(()),
            Err(error) => Err(said(&error)),
        }
    }

    /// Kills a node first if `kill`, and starts it.
    async fn act(&self, node: NodeId, kill: bool) -> Result<(), String> {
        let revived = timeout(self.revive_limit, self.revive(node, kill)).await;
        revived.unwrap_or_else(|_| Err(hangs(self.revive_limit)))
    }

    /// Kills a container and waits for its end. The engine's own restart is no alternative: it
    /// waits ten seconds for a process that hangs.
    async fn end(&self, engine: &Docker, id: &str) -> Result<(), String> {
        let options = KillContainerOptionsBuilder::default().signal("KILL").build();
        match engine.kill_container(id, Some(options)).await {
            // 409: it has ended by itself.
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) | Ok(()) => {}
            Err(error) => return Err(said(&error)),
        }
        let deadline = Instant::now() + END_LIMIT;
        while self.state(engine, id).await?.running == Some(true) {
            if Instant::now() > deadline {
                return Err(format!("container {id} does not end, not even by SIGKILL"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Why a connection to the engine fails, and what helps.
    async fn obstacle(&self, error: &DockerError) -> String {
        let obstacle = match self.host.strip_prefix("unix://") {
            Some(path) => socket::obstacle(Path::new(path)).await,
            None => None,
        };
        obstacle.unwrap_or_else(|| said(error))
    }

    /// Passes on the ends of containers until the engine closes the connection. Returns whether the
    /// receiver still exists. `missed` is whether the engine could not be reached before; this is
    /// logged once.
    async fn listen(
        &self,
        since: &mut u64,
        missed: &mut bool,
        ends: &mpsc::Sender<NodeId>,
    ) -> bool {
        let engine = match self.engine_in_time().await {
            Ok(engine) => engine,
            Err(why) => {
                if !std::mem::replace(missed, true) {
                    tracing::warn!("this node can bring no other back for now: {why}");
                }
                return !ends.is_closed();
            }
        };
        if std::mem::take(missed) {
            tracing::info!("the container engine answers: this node can bring others back");
        }
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), vec!["die".to_owned(), "oom".to_owned()]),
            ("label".to_owned(), vec![format!("{CLUSTER_LABEL}={}", self.cluster)]),
        ]);
        let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters);
        let mut events = engine.events(Some(options.build()));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = ends.closed() => return false,
            };
            let Some(Ok(event)) = event else { return true };
            *since = event.time.and_then(|time| u64::try_from(time).ok()).unwrap_or(*since);
            let labels = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            let node = labels.get(NODE_LABEL).and_then(|name| name.parse().ok());
            if let Some(node) = node {
                // If the queue is full, the failure detector still notices the end.
                let _ = ends.try_send(node);
            }
        }
    }
}

impl Reviver for DockerReviver {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn inspect(&self, node: NodeId) -> Pending<'_, Evidence> {
        Box::pin(async move {
            let looked = timeout(self.look_limit, self.look(node)).await;
            let looked = looked.unwrap_or_else(|_| Err(hangs(self.look_limit)));
            looked.unwrap_or_else(|reason| {
                tracing::debug!(%node, reason, "the container engine does not help");
                Evidence::Unknown
            })
        })
    }

    fn start(&self, node: NodeId) -> Pending<'_, Result<(), String>> {
        Box::pin(self.act(node, false))
    }

    fn restart(&self, node: NodeId) -> Pending<'_, Result<(), String>> {
        Box::pin(self.act(node, true))
    }

    /// Exit code 0 tells the engine that the stop was intended.
    fn retire(&self, _: NodeId) {}

    fn ends(self: Arc<Self>) -> mpsc::Receiver<NodeId> {
        let (ends, ended) = mpsc::channel(ENDS);
        let (mut since, mut missed) = (unix_ms() / 1000, false);
        tokio::spawn(async move {
            while self.listen(&mut since, &mut missed, &ends).await {
                tokio::select! {
                    () = tokio::time::sleep(RECONNECT) => {}
                    () = ends.closed() => return,
                }
            }
        });
        ended
    }
}

/// Evidence from the state of a container. Exit code 0 means that the node was asked to stop: by
/// `docker stop`, a drain, or `docker-compose down`.
fn evidence(state: &ContainerState) -> Evidence {
    use ContainerStateStatusEnum as Status;
    match state.status {
        Some(Status::CREATED) => Evidence::Exited,
        Some(Status::EXITED) if state.exit_code == Some(0) => Evidence::Retired,
        Some(Status::EXITED) => Evidence::Exited,
        Some(Status::RESTARTING) => Evidence::Starting,
        Some(Status::PAUSED) => Evidence::Ill,
        Some(Status::RUNNING) => match state.health.as_ref().and_then(|health| health.status) {
            Some(HealthStatusEnum::UNHEALTHY) => Evidence::Ill,
            Some(HealthStatusEnum::STARTING) => Evidence::Starting,
            _ => Evidence::Healthy,
        },
        _ => Evidence::Unknown,
    }
}

fn hangs(limit: Duration) -> String {
    format!("the container engine has not answered within {} s", limit.as_secs())
}

fn said(error: &DockerError) -> String {
    format!("the container engine: {error}")
}

#[cfg(test)]
mod tests {
    use bollard::models::Health;

    use super::*;

    #[test]
    fn each_state_of_a_container_is_evidence() {
        use ContainerStateStatusEnum as Status;
        let state = |status, exit_code| ContainerState {
            status: Some(status),
            exit_code: Some(exit_code),
            ..ContainerState::default()
        };
        let ill = |status| ContainerState {
            health: Some(Health { status: Some(status), ..Health::default() }),
            ..state(Status::RUNNING, 0)
        };
        for (state, expected) in [
            (state(Status::CREATED, 0), Evidence::Exited),
            (state(Status::EXITED, 137), Evidence::Exited),
            (state(Status::EXITED, 0), Evidence::Retired),
            (state(Status::RUNNING, 0), Evidence::Healthy),
            (ill(HealthStatusEnum::HEALTHY), Evidence::Healthy),
            (ill(HealthStatusEnum::STARTING), Evidence::Starting),
            (ill(HealthStatusEnum::UNHEALTHY), Evidence::Ill),
            (state(Status::PAUSED, 0), Evidence::Ill),
            (state(Status::RESTARTING, 1), Evidence::Starting),
            (state(Status::REMOVING, 1), Evidence::Unknown),
            (state(Status::DEAD, 1), Evidence::Unknown),
            (ContainerState::default(), Evidence::Unknown),
        ] {
            assert_eq!(evidence(&state), expected, "{state:?}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_no_evidence() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        // No answer, and half an answer.
        for said in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("engine.sock");
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let engine = tokio::spawn(async move {
                let mut connections = Vec::new();
                while let Ok((mut connection, _)) = listener.accept().await {
                    let _ = connection.read(&mut [0; 1 << 10]).await;
                    let _ = connection.write_all(said.as_bytes()).await;
                    connections.push(connection);
                }
            });
            let mut reviver = DockerReviver::new(&format!("unix://{}", path.display()), "c");
            let limit = Duration::from_millis(50);
            (reviver.look_limit, reviver.revive_limit) = (limit, limit);
            let node = "node-1".parse().unwrap();
            assert_eq!(reviver.inspect(node).await, Evidence::Unknown);
            for refused in [reviver.start(node).await, reviver.restart(node).await] {
                assert!(refused.unwrap_err().contains("has not answered"));
            }
            engine.abort();
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_is_no_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let host = format!("unix://{}", folder.path().join("no.sock").display());
        let reviver = DockerReviver::new(&host, "c");
        let node = "node-1".parse().unwrap();
        assert_eq!(reviver.inspect(node).await, Evidence::Unknown);
        assert!(reviver.start(node).await.unwrap_err().contains("container engine"));
    }
}
