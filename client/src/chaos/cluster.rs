//! Faults in one cluster: starts them, ends them, and waits until the cluster is whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::chaos::Order;
use cortado_protocol::client::{ClientRequest, ClientResponse, MemberState};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fault::Fault;
use super::machines::Machines;
use crate::cluster::unexpected;
use crate::{Cluster, Error};

/// How long a node has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the cluster has to become whole after all faults ended.
const WHOLE_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two requests for the view.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Makes faults in one cluster.
pub struct Chaos {
    cluster: Arc<Cluster>,
    machines: Machines,
    /// The members at the start, with their addresses for clients.
    nodes: BTreeMap<NodeId, SocketAddr>,
}

impl Chaos {
    /// Asks for the members. If `profile` is the folder of a local cluster, faults kill processes;
    /// otherwise they kill containers with the cluster's name.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no node answers, [`Error::BadInput`] if the folder is damaged.
    pub async fn new(cluster: Arc<Cluster>, profile: &Path) -> Result<Self, Error> {
        let view = cluster.view().await?;
        let nodes = view.members.iter().map(|member| (member.id, member.client_addr)).collect();
        let machines = Machines::of(profile, cluster.name())?;
        Ok(Self { cluster, machines, nodes })
    }

    /// The nodes that can have faults.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Makes a fault, for `duration` if its kind lasts. Returns the nodes that did not answer: dead
    /// nodes need no cut. A paused node is not resumed: call [`Chaos::resume`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown node, [`Error::BadInput`] if a node does not run or
    /// refuses.
    pub async fn inflict(&self, fault: &Fault, duration: Duration) -> Result<Vec<NodeId>, Error> {
        for node in fault.nodes() {
            self.address(node)?;
        }
        match fault {
            Fault::Kill(node) => self.machines.kill(*node).map(|()| Vec::new()),
            Fault::Pause(node) => self.machines.pause(*node).map(|()| Vec::new()),
            fault => {
                let for_ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
                let order = |what| Order::Begin { what, for_ms };
                let orders = fault.orders().into_iter();
                self.order(orders.map(|(node, what)| (node, order(what))).collect()).await
            }
        }
    }

    /// Resumes a paused node. Does nothing to a node that was killed in the meantime.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such node.
    pub fn resume(&self, node: NodeId) -> Result<(), Error> {
        self.address(node)?;
        self.machines.resume(node);
        Ok(())
    }

    /// Ends the disturbances of these nodes, and resumes those that are paused. Returns the nodes
    /// that did not answer.
    ///
    /// # Errors
    /// Like [`Chaos::inflict`].
    pub async fn heal(&self, nodes: &[NodeId]) -> Result<Vec<NodeId>, Error> {
        for node in nodes {
            self.resume(*node)?;
        }
        self.order(nodes.iter().map(|node| (*node, Order::Heal)).collect()).await
    }

    /// Waits until a node's view shows all nodes alive.
    ///
    /// # Errors
    /// [`Error::Unreachable`] after a minute; it names the missing nodes.
    pub async fn whole(&self) -> Result<(), Error> {
        let deadline = Instant::now() + WHOLE_DEADLINE;
        loop {
            let view = self.cluster.view().await?;
            let alive = |node: &NodeId| {
                view.members.iter().any(|m| m.id == *node && m.state == MemberState::Alive)
            };
            let missing: Vec<_> = self.nodes.keys().filter(|node| !alive(node)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Unreachable(format!(
                    "not back after {} s: {}; see `cortado log`",
                    WHOLE_DEADLINE.as_secs(),
                    NodeId::join(missing, ", ")
                )));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn order(&self, orders: Vec<(NodeId, Order)>) -> Result<Vec<NodeId>, Error> {
        let mut asking = JoinSet::new();
        for (node, order) in orders {
            let (cluster, addr) = (Arc::clone(&self.cluster), self.address(node)?);
            let request = ClientRequest::Chaos(order);
            asking.spawn(async move { (node, cluster.ask(addr, &request, ANSWER_TIMEOUT).await) });
        }
        let mut silent = Vec::new();
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok((_, Ok((ClientResponse::Accepted, _)))) | Err(_) => {}
                Ok((_, Ok((refused, _)))) => return Err(unexpected(&refused)),
                Ok((node, Err(_))) => silent.push(node),
            }
        }
        silent.sort_unstable();
        Ok(silent)
    }

    fn address(&self, node: NodeId) -> Result<SocketAddr, Error> {
        self.nodes.get(&node).copied().ok_or_else(|| {
            let names = NodeId::join(self.nodes.keys(), ", ");
            Error::NotFound(format!("there is no node {node}; there are {names}"))
        })
    }
}
