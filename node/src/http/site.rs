//! What all handlers share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::http::StatusCode;
use bytes::Bytes;
use cortado_log::Meter;
use cortado_membership::{Lead, View};
use cortado_protocol::NodeId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::answer::Refused;
use super::cache::Cache;
use super::feeds::Feeds;
use super::rollups::Rollups;
use super::serve::CONNECTIONS;
use crate::clients::Inside;
use crate::config::{Readers, Settings};
use crate::driver::Snapshot;
use crate::health::Doctor;
use crate::history::History;
use crate::meters::Meters;

/// What a page or a program may want to know of this node before it has read its log.
pub struct HttpConfig {
    /// This node.
    pub node: NodeId,
    /// Where to listen.
    pub bind: SocketAddr,
    /// Who may read.
    pub readers: Readers,
    /// Names under which this node is asked.
    pub hosts: Vec<String>,
}

impl HttpConfig {
    /// What the settings say, if HTTP is wanted.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        let mut hosts = settings.http_hosts.clone();
        hosts.extend(["localhost".to_owned(), settings.node.to_string()]);
        Some(Self {
            node: settings.node,
            bind: SocketAddr::new(settings.http_bind, settings.http_port?),
            readers: settings.http_readers,
            hosts,
        })
    }
}

/// What is known of the node before it has read its log.
pub struct Known {
    /// Says how it is.
    pub doctor: Doctor,
    /// What it saw happen.
    pub history: History,
    /// What is counted.
    pub meters: Arc<Meters>,
}

/// What is known of it from then on.
pub struct Started {
    /// Asks it like a client.
    pub inside: Inside,
    /// The members.
    pub views: watch::Receiver<View>,
    /// The supervisor.
    pub leaders: watch::Receiver<Lead>,
    /// Asks the node's loop for its figures.
    pub snapshots: mpsc::Sender<oneshot::Sender<Snapshot>>,
    /// What is written to the log.
    pub log: Arc<Meter>,
    /// The data folder.
    pub data: PathBuf,
}

/// See the module's description.
pub(super) struct Site {
    pub(super) node: NodeId,
    pub(super) readers: Readers,
    pub(super) hosts: Vec<String>,
    pub(super) doctor: Doctor,
    pub(super) history: History,
    pub(super) meters: Arc<Meters>,
    pub(super) cache: Cache,
    pub(super) feeds: Feeds,
    pub(super) rollups: Rollups,
    places: Arc<Semaphore>,
    started: OnceLock<Started>,
}

impl Site {
    pub(super) fn new(config: HttpConfig, known: Known, places: Arc<Semaphore>) -> Self {
        let HttpConfig { node, readers, hosts, .. } = config;
        let Known { doctor, history, meters } = known;
        Self {
            node,
            readers,
            hosts,
            doctor,
            history,
            meters,
            cache: Cache::default(),
            feeds: Feeds::default(),
            rollups: Rollups::default(),
            places,
            started: OnceLock::new(),
        }
    }

    pub(super) fn started(&self, started: Started) {
        // Only the first call has an effect.
        let _ = self.started.set(started);
    }

    /// The parts of the node, once it has read its log.
    pub(super) fn parts(&self) -> Option<&Started> {
        self.started.get()
    }

    /// Open connections.
    pub(super) fn connections(&self) -> u64 {
        (CONNECTIONS - self.places.available_permits()) as u64
    }

    /// Asks this node, once it has read its log.
    pub(super) fn inside(&self) -> Result<&Inside, Refused> {
        let starting = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the node reads its log");
        self.parts().map(|started| &started.inside).ok_or_else(starting)
    }

    /// Asks this node.
    pub(super) async fn ask(
        &self,
        request: ClientRequest,
    ) -> Result<(ClientResponse, Bytes), Refused> {
        Ok(self.inside()?.ask(request).await?)
    }

    /// The HTTP addresses of members.
    pub(super) fn members(&self) -> Vec<String> {
        let Some(started) = self.parts() else { return Vec::new() };
        let view = started.views.borrow();
        let addresses = view.members.iter().filter_map(|member| member.identity.http_addr);
        addresses.map(|addr| addr.to_string()).collect()
    }
}
