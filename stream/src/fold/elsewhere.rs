//! Events of other windows with the ids of those that are folded: which of them come first, and which
//! windows are touched by what is new.

use std::collections::{BTreeMap, BTreeSet};

use cortado_engine::DeltaError;
use cortado_protocol::Edge;
use cortado_protocol::stream::Place;

use super::{Seen, WindowFold};
use crate::cut::Cut;
use crate::event::facts_of;
use crate::ids::{IdIndex, IdSpan, Sighting};
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
    fn take(&mut self, of: &Looking<'_>, (id, seen): (&str, &Seen), at: Sighting) {
        let Looking { window, key, range, shortest, every, horizon, before, span } = *of;
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
            let had = |place: &Place| before.is_some_and(|cut| cut.has(place.edge, place.batch));
            let places = seen.others.iter().map(|(place, _)| place).chain([&seen.origin.1]);
            for new in places.filter(|place| !had(place)) {
                for later in [start.max(time), latest.min(end.saturating_sub(1))] {
                    let later = (key.0, start_of(later, every));
                    if later > key {
                        let cut = self.touched.entry((window, later)).or_default();
                        cut.include(new.edge, new.batch + 1);
                    }
                }
            }
        }
    }
}

/// What is looked for: the ids of one window, in one span.
struct Looking<'l> {
    window: usize,
    key: WindowKey,
    range: (i64, i64),
    /// The length of the plan's shortest windows.
    shortest: i64,
    every: i64,
    horizon: i64,
    before: Option<&'l Cut>,
    span: &'l IdSpan,
}

impl WindowFold<'_> {
    /// Looks the ids of all windows up in a span, all of whose batches are in the index.
    pub fn look_up(&mut self, index: &IdIndex, span: &IdSpan) {
        let horizon = self.plan.horizon_ms();
        let shortest = self.plan.shortest_ms();
        let times = self.plan.id_span(span.start_ms);
        for (key, (window, seen)) in &self.windows {
            let range = (key.1, self.plan.end_of(*key));
            let from = range.0.saturating_sub(horizon);
            if times.end <= from || times.start > range.1.saturating_add(horizon) {
                continue;
            }
            let of = Looking {
                window: *window,
                key: *key,
                range,
                shortest,
                every: range.1 - range.0,
                horizon,
                before: self.wanted.windows[*window].before.as_ref(),
                span,
            };
            for (id, seen) in seen {
                for at in index.find(span.start_ms, id) {
                    self.elsewhere.take(&of, (id, seen), at);
                }
            }
        }
    }

    /// The batches that have to be read once more, with [`WindowFold::check`], until there are none. Of each
    /// id those of the earliest window are read first.
    #[must_use]
    pub fn unsure(&self) -> BTreeSet<(Edge, u64)> {
        let open = self.elsewhere.open.values().flat_map(BTreeMap::values);
        open.flat_map(next_of).map(|of| (of.edge, of.batch)).collect()
    }

    /// Looks for events that come first in a batch's delta.
    ///
    /// # Errors
    /// If the bytes are no delta of events.
    pub fn check(&mut self, (edge, batch): (Edge, u64), delta: &[u8]) -> Result<(), DeltaError> {
        let Elsewhere { open, first, .. } = &mut self.elsewhere;
        for fact in facts_of(delta)?.facts {
            let Some(of_id) = open.get(&fact.id) else { continue };
            let at = (fact.at_ms, Place { edge, batch, position: fact.position });
            for (window, sightings) in of_id {
                let key = self.wanted.windows[*window].key;
                let seen = self.windows.get(&key).and_then(|(_, seen)| seen.get(&fact.id));
                let Some((time, _)) = seen.map(|seen| seen.origin) else { continue };
                let earliest = time.saturating_sub(self.plan.horizon_ms());
                let mut asked = next_of(sightings).map(|of| (of.edge, of.batch));
                if (earliest..key.1).contains(&at.0) && asked.any(|of| of == (edge, batch)) {
                    let first = first.entry(fact.id.clone()).or_default();
                    let known = first.entry(*window).or_insert(at);
                    *known = at.min(*known);
                }
            }
        }
        Ok(())
    }

    /// All batches were read that [`WindowFold::unsure`] named.
    pub fn checked(&mut self) {
        let Elsewhere { open, first, .. } = &mut self.elsewhere;
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

/// The sightings in the earliest window.
fn next_of(open: &BTreeSet<Sighting>) -> impl Iterator<Item = &Sighting> {
    let earliest = open.first().map(|of| of.window_ms);
    open.iter().take_while(move |of| Some(of.window_ms) == earliest)
}
