//! What a round wants folded.

use std::collections::BTreeMap;

use cortado_protocol::stream::Place;
use cortado_protocol::{Coverage, Edge};
use serde::{Deserialize, Serialize};

use crate::cut::Cut;
use crate::ids::IdSpan;
use crate::plan::WindowKey;

/// What a round folds.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// The windows, in order.
    pub windows: Vec<WantedWindow>,
    /// Where their ids are looked for: the batches of the cut that have events near them.
    pub near: Vec<IdSpan>,
}

/// A window, and the batches of the cut that have events in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedWindow {
    /// The window.
    pub key: WindowKey,
    /// The batches, by edge.
    pub batches: Vec<(Edge, Coverage)>,
    /// Valid events that the summaries of the batches say it has, copies counted.
    pub valid: u64,
    /// The cut with which the window was published last.
    pub before: Option<Cut>,
}

impl WantedWindow {
    /// Whether an event lies in a batch with which the window was published last.
    pub(super) fn had(&self, place: &Place) -> bool {
        self.before.as_ref().is_some_and(|cut| cut.has(place.edge, place.batch))
    }
}

impl Wanted {
    /// The batches of all windows.
    #[must_use]
    pub fn batches(&self) -> BTreeMap<Edge, Coverage> {
        union(self.windows.iter().flat_map(|window| &window.batches))
    }

    /// The batches of all windows, and those near them.
    #[must_use]
    pub fn all_batches(&self) -> BTreeMap<Edge, Coverage> {
        let near = self.near.iter().flat_map(|span| &span.batches);
        union(self.windows.iter().flat_map(|window| &window.batches).chain(near))
    }
}

fn union<'a>(all: impl Iterator<Item = &'a (Edge, Coverage)>) -> BTreeMap<Edge, Coverage> {
    let mut union: BTreeMap<Edge, Coverage> = BTreeMap::new();
    all.for_each(|(edge, coverage)| union.entry(*edge).or_default().union(coverage));
    union
}
