//! Events of other windows with the ids of those that are folded: which of them come first, and which
//! windows are touched by what is new.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::Edge;
use cortado_protocol::stream::Place;

use super::seen::Seen;
use super::wanted::WantedWindow;
use crate::cut::Cut;
use crate::event::Fact;
use crate::ids::{IdSpan, Sighting};
use crate::plan::{WindowKey, start_of};

/// What is known of other windows.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// Where an event may be that comes before those of an id, until that is known.
    open: BTreeMap<String, BTreeMap<usize, BTreeSet<Sighting>>>,
    /// The event that comes first, by id and window.
    first: BTreeMap<String, BTreeMap<usize, (i64, Place)>>,
    /// Of a window: later ones in which an id may be, and the batches that are new.
    touched: BTreeMap<(usize, WindowKey), Cut>,
}

impl Elsewhere {
    /// The event in another window that comes before all events with an id in this one.
    pub(super) fn first(&self, window: usize, id: &str) -> Option<Place> {
        self.first.get(id)?.get(&window).map(|(_, place)| *place)
    }

    /// Later windows that what is new in a window touches.
    pub(super) fn touched(&self) -> impl Iterator<Item = (&(usize, WindowKey), &Cut)> {
        self.touched.iter()
    }

    /// Takes in where an id of a window may be, too.
    pub(super) fn take(&mut self, of: &Looking<'_>, (id, seen): (&str, &Seen), at: Sighting) {
        let Looking { window, wanted, range, shortest, horizon, span } = *of;
        let (start, end) = (at.window_ms, at.window_ms.saturating_add(shortest));
        // What lies in the window itself was seen there.
        if range.0 <= start && end <= range.1 {
            return;
        }
        let (time, _) = seen.origin;
        let earliest = time.saturating_sub(horizon);
        if start <= time && end > earliest && span.has(at.edge, at.batch) {
            self.open.entry(id.to_owned()).or_default().entry(window).or_default().insert(at);
        }
        let latest = time.saturating_add(horizon);
        if end > time && start <= latest {
            let key = wanted.key;
            let places = seen.others.iter().map(|(place, _)| place).chain([&seen.origin.1]);
            for new in places.filter(|place| !wanted.had(place)) {
                for later in [start.max(time), latest.min(end.saturating_sub(1))] {
                    let later = (key.0, start_of(later, range.1 - range.0));
                    if later > key {
                        let cut = self.touched.entry((window, later)).or_default();
                        cut.include(new.edge, new.batch + 1);
                    }
                }
            }
        }
    }

    /// The batches that have to be read: of each id those of the earliest window that is left.
    pub(super) fn unsure(&self) -> BTreeSet<(Edge, u64)> {
        let open = self.open.values().flat_map(BTreeMap::values);
        open.flat_map(next_of).map(|of| (of.edge, of.batch)).collect()
    }

    /// Looks for events that come first in a batch. `time_of` says where a window starts, and the time of what
    /// comes first of an id in it.
    pub(super) fn check(
        &mut self,
        (edge, batch): (Edge, u64),
        facts: &[Fact],
        horizon: i64,
        time_of: impl Fn(usize, &str) -> Option<(i64, i64)>,
    ) {
        for fact in facts {
            let Some(of_id) = self.open.get(&fact.id) else { continue };
            let at = (fact.at_ms, Place { edge, batch, position: fact.position });
            for (window, sightings) in of_id {
                let Some((start, time)) = time_of(*window, &fact.id) else { continue };
                let mut asked = next_of(sightings).map(|of| (of.edge, of.batch));
                let close = time.saturating_sub(horizon)..start;
                if close.contains(&at.0) && asked.any(|of| of == (edge, batch)) {
                    let first = self.first.entry(fact.id.clone()).or_default();
                    let known = first.entry(*window).or_insert(at);
                    *known = at.min(*known);
                }
            }
        }
    }

    /// All batches were read that were wanted.
    pub(super) fn checked(&mut self) {
        let Self { open, first, .. } = self;
        open.retain(|id, of_id| {
            let first = first.get(id);
            of_id.retain(|window, sightings| {
                if let Some(last) = next_of(sightings).last().copied() {
                    sightings.retain(|of| *of > last);
                }
                !sightings.is_empty() && first.is_none_or(|first| !first.contains_key(window))
            });
            !of_id.is_empty()
        });
    }
}

/// What is looked for: the ids of one window, in one span.
pub(super) struct Looking<'l> {
    /// The window, and its number among those that are folded.
    pub(super) wanted: &'l WantedWindow,
    pub(super) window: usize,
    /// Where it starts and ends.
    pub(super) range: (i64, i64),
    /// The length of the plan's shortest windows.
    pub(super) shortest: i64,
    pub(super) horizon: i64,
    pub(super) span: &'l IdSpan,
}

/// The sightings in the earliest window.
fn next_of(open: &BTreeSet<Sighting>) -> impl Iterator<Item = &Sighting> {
    let earliest = open.first().map(|of| of.window_ms);
    open.iter().take_while(move |of| Some(of.window_ms) == earliest)
}
