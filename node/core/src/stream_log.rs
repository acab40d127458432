//! What a stream's own entries say: its publishers, its schema sets, and whether it is to end.

use std::collections::BTreeMap;

use cortado_protocol::Edge;
use cortado_protocol::stream::{Publisher, SchemaFile, Seal};

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct StreamLog {
    /// Whether the stream is to end once all publishers have ended.
    pub(crate) stopping: bool,
    /// The publishers, by their edges.
    pub(crate) publishers: BTreeMap<Edge, Publisher>,
    /// Which batches count of publishers that were sealed.
    pub(crate) seals: BTreeMap<Edge, Seal>,
    /// The schema sets.
    pub(crate) schemas: BTreeMap<u32, Vec<SchemaFile>>,
}

impl StreamLog {
    /// The newest schema set.
    pub(crate) fn newest_set(&self) -> Option<u32> {
        self.schemas.last_key_value().map(|(set, _)| *set)
    }

    /// The newest generation of a publisher.
    pub(crate) fn newest_of(&self, name: &str) -> Option<&Publisher> {
        let of_name = self.publishers.values().filter(|publisher| publisher.name == name);
        of_name.max_by_key(|publisher| publisher.generation)
    }
}
