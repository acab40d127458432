//! How many failures a cluster survives, by its number of copies.

use serde::Serialize;

/// The number of copies of each batch, given the number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Durability {
    /// Nodes of the cluster.
    pub nodes: u16,
    /// Copies aimed at.
    pub replicas: u8,
    /// Copies needed before an acknowledgement.
    pub min_copies: u8,
}

impl Durability {
    /// The wanted copies, limited to what `nodes` nodes can hold.
    #[must_use]
    pub fn of(nodes: u16, replicas: u8, min_copies: u8) -> Self {
        let most = u8::try_from(nodes).unwrap_or(u8::MAX).max(1);
        let replicas = replicas.clamp(1, most);
        Self { nodes, replicas, min_copies: min_copies.clamp(1, replicas) }
    }

    /// The failures that it survives, as a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let nodes = if self.nodes == 1 { "1 node".into() } else { format!("{} nodes", self.nodes) };
        let (copies, replicas) = (self.min_copies, self.replicas);
        match copies - 1 {
            0 if self.nodes == 1 => format!("{nodes}: nothing survives the loss of its disk"),
            0 => format!(
                "{nodes}: acknowledged by fsync on 1 of {replicas}; the loss of one disk may lose data"
            ),
            lost => format!(
                "{nodes}: acknowledged by fsync on {copies} of {replicas}; the loss of any {lost} \
                 {} loses nothing",
                if lost == 1 { "disk" } else { "disks" }
            ),
        }
    }
}
