//! The members, and the owners of the slots.

use cortado_protocol::client::{ClusterView, MemberView, RingView};
use serde::Serialize;
use utoipa::ToSchema;

/// The members as one node sees them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Cluster {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub answered_by: String,
    /// Copies aimed at.
    pub replicas: u8,
    /// Copies needed before an acknowledgement.
    pub min_copies: u8,
    /// Slots of a job.
    pub slots: u8,
    /// Members that the cluster must have seen before it takes the first job.
    pub expected_nodes: u16,
    /// Whether it has seen that many.
    pub formed: bool,
    /// Members, live and down, ordered by id.
    pub members: Vec<Member>,
    /// The elected supervisor, once there is one.
    pub supervisor: Option<Supervisor>,
    /// Members that were revived too often: the operator must start them.
    pub crash_looping: Vec<String>,
    /// Jobs that stay only because too many members are away.
    pub overdue: Option<Overdue>,
}

/// A member as one node sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Member {
    /// Its name.
    pub id: String,
    /// `alive`, `ill`, `draining` or `down`.
    pub state: &'static str,
    /// Its address for clients (UDP).
    pub client_addr: String,
    /// Its address for HTTP, if others can reach it.
    pub http_addr: Option<String>,
    /// Grows with every start.
    pub generation: u64,
    /// Jobs whose records it holds; only known for the node that answers.
    pub jobs: Option<u32>,
    /// Why it is ill, as a sentence.
    pub reason: Option<String>,
}

/// The elected supervisor.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Supervisor {
    /// The node.
    pub node: String,
    /// Its term.
    pub term: u64,
}

/// Jobs past their time to live.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overdue {
    /// Their number.
    pub jobs: u32,
    /// The members that are away.
    pub away: Vec<String>,
}

/// The owners of the slots, in the answering node's view.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ring {
    /// Grows with every change of the view.
    pub version: u64,
    /// The slots.
    pub slots: Vec<Slot>,
    /// Moves in progress.
    pub moves: Vec<Move>,
}

/// A slot.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Slot {
    /// Its number.
    pub slot: u8,
    /// Its owners, first owner first.
    pub owners: Vec<String>,
}

/// Entries that move to another node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Move {
    /// The job.
    #[schema(value_type = String)]
    pub job: cortado_protocol::JobId,
    /// The node.
    pub to: String,
    /// Entries still to move.
    pub entries: u64,
}

fn names<'n>(nodes: impl IntoIterator<Item = &'n cortado_protocol::NodeId>) -> Vec<String> {
    nodes.into_iter().map(ToString::to_string).collect()
}

impl From<&ClusterView> for Cluster {
    fn from(view: &ClusterView) -> Self {
        let supervisor = view.supervisor.as_ref();
        Self {
            cluster: view.cluster.clone(),
            answered_by: view.answered_by.to_string(),
            replicas: view.replicas,
            min_copies: view.min_copies,
            slots: view.slots,
            expected_nodes: view.expected_nodes,
            formed: view.formed,
            members: view.members.iter().map(Member::from).collect(),
            supervisor: supervisor
                .map(|(node, term)| Supervisor { node: node.to_string(), term: *term }),
            crash_looping: names(&view.crash_looping),
            overdue: view
                .overdue
                .as_ref()
                .map(|overdue| Overdue { jobs: overdue.jobs, away: names(&overdue.away) }),
        }
    }
}

impl From<&MemberView> for Member {
    fn from(view: &MemberView) -> Self {
        Self {
            id: view.id.to_string(),
            state: view.state.name(),
            client_addr: view.client_addr.to_string(),
            http_addr: view.http_addr.map(|addr| addr.to_string()),
            generation: view.generation,
            jobs: view.jobs,
            reason: view.reason.clone(),
        }
    }
}

impl From<&RingView> for Ring {
    fn from(view: &RingView) -> Self {
        let slot = |(slot, owners): &(cortado_protocol::Slot, Vec<_>)| Slot {
            slot: slot.0,
            owners: names(owners),
        };
        let moves = |(job, to, entries): &(_, cortado_protocol::NodeId, _)| Move {
            job: *job,
            to: to.to_string(),
            entries: *entries,
        };
        Self {
            version: view.version,
            slots: view.slots.iter().map(slot).collect(),
            moves: view.moves.iter().map(moves).collect(),
        }
    }
}
