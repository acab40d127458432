//! Checkpoints: what is left of windows whose time of retention is over.

use cortado_protocol::Edge;
use cortado_protocol::stream::{Cursor, Floors};
use serde::{Deserialize, Serialize};

use crate::cut::Cut;
use crate::plan::WindowKey;

/// What a stream still says of retired windows. Whoever reads the stream from its floors on, beginning
/// with this, knows the same as whoever has read it from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Windows that end by then are retired, in milliseconds since the Unix epoch.
    pub before_ms: i64,
    /// The batches whose events in retired windows are settled: counted or not, once and for all. Events
    /// of other batches in these windows came too late.
    pub cut: Cut,
    /// What is gone of publishers.
    pub sources: Vec<GoneSource>,
    /// What is gone of outputs.
    pub outputs: Vec<GoneOutput>,
    /// Retired windows of the plan's first kind that were published.
    pub windows: u64,
    /// Events that count in them.
    pub counted: u64,
    /// Copies of them.
    pub duplicates: u64,
    /// Events that contradict one of them.
    pub conflicts: u64,
    /// Events in retired windows that came too late to count.
    pub late: u64,
    /// The spans of roll-ups that have not ended by then and have retired windows.
    pub spans: Vec<GoneSpan>,
    /// How far the rows of outputs were delivered to their webhooks.
    pub delivered: Vec<(String, Cursor)>,
}

/// What retired windows add to a span of a roll-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneSpan {
    /// Number of the roll-up, and where the span starts.
    pub key: WindowKey,
    /// The retired windows in it that were published.
    pub windows: u64,
    /// Their sums, by path.
    pub paths: Vec<(String, u64)>,
}

/// Batches of a publisher that are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneSource {
    /// Its edge.
    pub edge: Edge,
    /// The first batch that is kept.
    pub floor: u64,
    /// Events in those that are gone.
    pub received: u64,
    /// Dead letters among them.
    pub dead: u64,
    /// The highest of their low watermarks, in milliseconds since the Unix epoch.
    pub watermark_ms: Option<i64>,
    /// Whether the publisher's last batch is gone.
    pub ended: bool,
}

/// Batches of outputs that are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneOutput {
    /// The edge of the coordinator that published them.
    pub edge: Edge,
    /// The first batch that is kept.
    pub floor: u64,
    /// Rows of windows in those that are gone.
    pub rows: u64,
}

impl Checkpoint {
    /// What is gone, for nodes that keep the rest; `place` is where the checkpoint stands.
    #[must_use]
    pub fn floors(&self, place: (Edge, u64)) -> Floors {
        let sources = self.sources.iter().map(|source| (source.edge, source.floor));
        let outputs = self.outputs.iter().map(|output| (output.edge, output.floor));
        let floors = sources.chain(outputs).filter(|(_, floor)| *floor > 0).collect();
        Floors { before_ms: self.before_ms, checkpoint: place, floors }
    }
}
