//! Nodes as processes of this machine, each with a folder beside the others' (`cortado local`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cortado_local::{By, Place, ProcessId, Start};
use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use tokio::sync::mpsc;

use super::reviver::{ENDS, Pending, Reviver};
use crate::health::{self, Health};

/// Pause between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Starts nodes whose folders lie beside this one's.
#[derive(Debug)]
pub struct ProcessReviver {
    folder: PathBuf,
    daemon: PathBuf,
}

impl ProcessReviver {
    /// Revives nodes with folders beside `own`, with the program of this process.
    ///
    /// # Errors
    /// If `own` has no parent folder, or the system does not name the running program.
    pub fn beside(own: &Path) -> anyhow::Result<Self> {
        let own = std::path::absolute(own)?;
        let folder = own.parent().with_context(|| format!("{} has no parent", own.display()))?;
        let daemon = std::env::current_exe().context("can't tell which program this is")?;
        Ok(Self::new(folder, &daemon))
    }

    /// Revives nodes with a folder in `folder`, with the program `daemon`.
    #[must_use]
    pub fn new(folder: &Path, daemon: &Path) -> Self {
        Self { folder: folder.to_owned(), daemon: daemon.to_owned() }
    }

    /// The folder of a node. A name of dots only is no node's folder.
    fn place(&self, node: NodeId) -> Option<Place> {
        let name = node.as_str();
        let named = name.bytes().any(|byte| byte != b'.');
        named.then(|| Place::new(self.folder.join(name))).filter(Place::is_node)
    }

    /// Runs a blocking action on the node's folder in another thread.
    fn with<T: Send + 'static>(
        &self,
        node: NodeId,
        act: impl FnOnce(Option<Place>, PathBuf) -> T + Send + 'static,
        failed: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<'static, T> {
        let (place, daemon) = (self.place(node), self.daemon.clone());
        let acting = tokio::task::spawn_blocking(move || act(place, daemon));
        Box::pin(async move { acting.await.unwrap_or_else(|_| failed()) })
    }

    fn act(
        &self,
        node: NodeId,
        act: impl FnOnce(&Place, &Path) -> std::io::Result<Start> + Send + 'static,
    ) -> Pending<'static, Result<(), String>> {
        let acted = move |place: Option<Place>, daemon: PathBuf| {
            let place = place.ok_or_else(|| format!("{node} has no folder here"))?;
            match act(&place, &daemon) {
                Ok(Start::Started | Start::Running) => Ok(()),
                Ok(Start::Retired) => Err("it was stopped on purpose".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        self.with(node, acted, || Err("the attempt failed".into()))
    }

    /// All nodes beside this one that run, with their processes.
    fn running(&self) -> BTreeMap<NodeId, ProcessId> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        names.filter_map(|node| Some((node, self.place(node)?.process()?))).collect()
    }
}

impl Reviver for ProcessReviver {
    fn name(&self) -> &'static str {
        "process"
    }

    fn inspect(&self, node: NodeId) -> Pending<'_, Evidence> {
        let inspect = |place: Option<Place>, _| {
            let Some(place) = place else { return Evidence::Unknown };
            if place.process().is_none() {
                return if place.is_retired() { Evidence::Retired } else { Evidence::Exited };
            }
            let Some(data) = data_folder(&place) else { return Evidence::Unknown };
            match health::check(&data) {
                Health::Ok => Evidence::Healthy,
                Health::Starting => Evidence::Starting,
                Health::Ill(_) => Evidence::Ill,
            }
        };
        self.with(node, inspect, || Evidence::Unknown)
    }

    fn start(&self, node: NodeId) -> Pending<'_, Result<(), String>> {
        self.act(node, |place, daemon| place.start(daemon, By::Peer))
    }

    fn restart(&self, node: NodeId) -> Pending<'_, Result<(), String>> {
        self.act(node, |place, daemon| place.restart(daemon, By::Peer))
    }

    fn retire(&self, me: NodeId) {
        if let Some(place) = self.place(me)
            && let Err(error) = place.retire()
        {
            tracing::warn!(%error, "peers may start this node again: can't note that it ends");
        }
    }

    fn ends(self: Arc<Self>) -> mpsc::Receiver<NodeId> {
        let (ends, ended) = mpsc::channel(ENDS);
        // Read before this function returns, so that an end right after the call is noticed.
        let mut ran = self.running();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = ends.closed() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let looker = Arc::clone(&self);
                let Ok(runs) = tokio::task::spawn_blocking(move || looker.running()).await else {
                    return;
                };
                for node in ran.keys().filter(|node| !runs.contains_key(*node)) {
                    // If the queue is full, the failure detector still notices the end.
                    if let Err(mpsc::error::TrySendError::Closed(_)) = ends.try_send(*node) {
                        return;
                    }
                }
                ran = runs;
            }
        });
        ended
    }
}

/// A node's data folder, as its configuration names it.
fn data_folder(place: &Place) -> Option<PathBuf> {
    let text = std::fs::read_to_string(place.config()).ok()?;
    let config: toml::Table = text.parse().ok()?;
    Some(place.path().join(config.get("data")?.as_str()?))
}
