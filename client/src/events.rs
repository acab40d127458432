//! The events of all nodes that answer; each node reports what it saw. `cortado log` uses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::client::{ClientRequest, ClientResponse, MemberState};
use cortado_protocol::event::Event;
use cortado_protocol::limits::EVENTS_PER_ANSWER;
use tokio::task::JoinSet;

use crate::{Cluster, Error};

/// Longest time that a node may take to answer, beyond the wait that the client asks for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// An event and the node that saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The node that saw it.
    pub by: NodeId,
    /// The boot of that node: each boot numbers its events from the start.
    pub boot: u64,
    /// The event.
    pub event: Event,
}

/// Collects events, each once.
pub struct Events {
    cluster: Arc<Cluster>,
    /// For each node, boot and number of its last event.
    seen: BTreeMap<NodeId, (u64, u64)>,
}

impl Events {
    /// Starts with the oldest events that nodes keep.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, seen: BTreeMap::new() }
    }

    /// The events since the last call, in the order of the nodes' clocks. Waits up to `wait` for
    /// them; without a wait, returns all there are. Nodes that do not answer are skipped.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no node answers with the members.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Seen>, Error> {
        self.cluster.view().await?;
        let mut asking = JoinSet::new();
        for state in [MemberState::Alive, MemberState::Draining] {
            for (node, addr) in self.cluster.members(state) {
                let cluster = Arc::clone(&self.cluster);
                let last = self.seen.get(&node).copied().unwrap_or_default();
                asking.spawn(async move { (node, ask(&cluster, addr, last, wait).await) });
            }
        }
        let mut gathered = Vec::new();
        while let Some(answered) = asking.join_next().await {
            let Ok((node, (last, events))) = answered else { continue };
            self.seen.insert(node, last);
            gathered.extend(events.into_iter().map(|event| Seen { by: node, boot: last.0, event }));
        }
        gathered.sort_by_key(|seen| (seen.event.unix_ms, seen.by, seen.event.number));
        Ok(gathered)
    }
}

/// One node's events after `last`, and its last event now.
async fn ask(
    cluster: &Cluster,
    addr: std::net::SocketAddr,
    mut last: (u64, u64),
    mut wait: Duration,
) -> ((u64, u64), Vec<Event>) {
    let mut gathered = Vec::new();
    loop {
        let (boot, after) = last;
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = ClientRequest::Log { boot, after, wait_ms };
        let answer = cluster.ask(addr, &request, wait + ANSWER_TIMEOUT).await;
        let Ok((ClientResponse::Log { boot, events }, _)) = answer else { break };
        let more = events.len() == EVENTS_PER_ANSWER;
        last = (boot, events.last().map_or(after, |event| event.number));
        gathered.extend(events);
        if !more {
            break;
        }
        wait = Duration::ZERO;
    }
    (last, gathered)
}
