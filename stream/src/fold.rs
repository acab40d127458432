//! Folds what a slot holds of some windows: which events count, which are copies, which contradict
//! another one. Owners of slots call it.
//!
//! Of several events with one id the first one counts: the one with the earliest time, and of those with
//! one time the one with the smallest place. Others are copies or contradictions if they are at most the
//! plan's horizon later than an event with the id, whether that one counts or not. So which events count
//! is decided for each by itself, and depends on the cut only.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_engine::DeltaError;
use cortado_protocol::stream::Place;
use cortado_protocol::{Edge, frame};
use serde::{Deserialize, Serialize};

use crate::cut::Cut;
use crate::event::{Fact, Facts, SEPARATOR, facts_of};
use crate::ids::{IdIndex, IdSpan};
use crate::plan::{StreamPlan, WindowKey, start_of};
use crate::texts::Texts;

mod elsewhere;
mod seen;
mod wanted;

use elsewhere::{Elsewhere, Looking};
use seen::{Seen, see};
pub use wanted::{Wanted, WantedWindow};

/// The part of a slot in one window.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct WindowPart {
    /// Events that count, by the texts they are grouped by.
    pub(crate) counts: BTreeMap<Vec<String>, u64>,
    /// Their ids, if the plan wants them.
    pub(crate) ids: Vec<String>,
    /// Copies of events that count.
    pub(crate) duplicates: u64,
    /// Events that contradict one that counts.
    pub(crate) conflicts: Vec<Conflict>,
    /// What the events that count add to the plan's roll-ups, by path.
    pub(crate) paths: BTreeMap<String, u64>,
    /// Events of which the window had no copy when it was published last: the paths of their parts,
    /// and their ids.
    pub(crate) added: Vec<(String, String)>,
    /// Later windows that may have an event with an id that is new in this one, and the batches that
    /// brought it.
    pub(crate) touches: Vec<(WindowKey, Cut)>,
}

/// An event with the id of another one, and other content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Conflict {
    pub(crate) origin: Place,
    pub(crate) id: String,
    /// The event that counts.
    pub(crate) counts: Place,
    /// Whether it was not known when the window was published last.
    pub(crate) is_news: bool,
}

/// The fold of one slot. The order in which deltas are added has no effect.
pub struct WindowFold<'a> {
    plan: &'a StreamPlan,
    wanted: &'a Wanted,
    windows: BTreeMap<WindowKey, (usize, BTreeMap<String, Seen>)>,
    elsewhere: Elsewhere,
    texts: Texts,
    bytes: usize,
}

impl<'a> WindowFold<'a> {
    /// A fold without events.
    #[must_use]
    pub fn new(plan: &'a StreamPlan, wanted: &'a Wanted) -> Self {
        let windows = wanted.windows.iter().enumerate();
        let windows = windows.map(|(at, window)| (window.key, (at, BTreeMap::new()))).collect();
        let (elsewhere, texts) = (Elsewhere::default(), Texts::default());
        Self { plan, wanted, windows, elsewhere, texts, bytes: 0 }
    }

    /// Adds a batch's delta, and its ids to the index.
    ///
    /// # Errors
    /// If the bytes are no delta of this plan.
    pub fn add(
        &mut self,
        index: &mut IdIndex,
        (edge, batch): (Edge, u64),
        delta: &[u8],
    ) -> Result<(), DeltaError> {
        let malformed = DeltaError::Malformed("facts of events");
        let Facts { texts, facts } = facts_of(delta)?;
        for span in self.wanted.near.iter().filter(|span| span.has(edge, batch)) {
            index.add(self.plan, span.start_ms, (edge, batch), &facts);
        }
        let numbers: Vec<_> = texts.iter().map(|text| self.texts.number(text)).collect();
        for fact in facts {
            let Fact { id, at_ms, content, position, keys, paths } = fact;
            let of = |own: Vec<u32>| own.iter().map(|key| numbers[*key as usize]).collect();
            let (keys, paths): (Vec<_>, Vec<_>) = (of(keys), of(paths));
            let origin = (at_ms, Place { edge, batch, position });
            let mut keys = keys.as_slice();
            for (number, window) in self.plan.windows().iter().enumerate() {
                let Some((own, rest)) = keys.split_at_checked(window.group_by.len()) else {
                    return Err(malformed);
                };
                keys = rest;
                let key = (number as u16, start_of(at_ms, window.every_ms));
                let Some((at, seen)) = self.windows.get_mut(&key) else { continue };
                let batches = &self.wanted.windows[*at].batches;
                let covered =
                    batches.iter().any(|(of, numbers)| *of == edge && numbers.contains(batch));
                if covered {
                    let paths = if number == 0 { &paths[..] } else { &[] };
                    self.bytes += see(seen, &id, (origin, content), (own, paths));
                }
            }
        }
        Ok(())
    }

    /// Looks the ids of all windows up in a span, all of whose batches are in the index.
    pub fn look_up(&mut self, index: &IdIndex, span: &IdSpan) {
        let (horizon, shortest) = (self.plan.horizon_ms(), self.plan.shortest_ms());
        let times = self.plan.id_span(span.start_ms);
        for (key, (window, seen)) in &self.windows {
            let range = (key.1, self.plan.end_of(*key));
            let from = range.0.saturating_sub(horizon);
            if times.end <= from || times.start > range.1.saturating_add(horizon) {
                continue;
            }
            let wanted = &self.wanted.windows[*window];
            let of = Looking { window: *window, wanted, range, shortest, horizon, span };
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
        self.elsewhere.unsure()
    }

    /// Looks for events that come first in a batch's delta.
    ///
    /// # Errors
    /// If the bytes are no delta of events.
    pub fn check(&mut self, of: (Edge, u64), delta: &[u8]) -> Result<(), DeltaError> {
        let time_of = |window: usize, id: &str| {
            let key = self.wanted.windows[window].key;
            let (_, seen) = self.windows.get(&key)?;
            Some((key.1, seen.get(id)?.origin.0))
        };
        let horizon = self.plan.horizon_ms();
        self.elsewhere.check(of, &facts_of(delta)?.facts, horizon, time_of);
        Ok(())
    }

    /// All batches were read that [`WindowFold::unsure`] named.
    pub fn checked(&mut self) {
        self.elsewhere.checked();
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slot's part of each window, in the order in which they are wanted.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let mut parts = vec![WindowPart::default(); self.wanted.windows.len()];
        let text = |number: u32| self.texts.value(number).to_owned();
        // The path of a part, without a metric, is the shortest one of its roll-up.
        let is_part: Vec<_> = self.texts.all().map(|text| is_part(self.plan, text)).collect();
        for ((at, later), cut) in self.elsewhere.touched() {
            parts[*at].touches.push((*later, cut.clone()));
        }
        for ((number, _), (at, seen)) in self.windows {
            let ids = self.plan.windows().get(usize::from(number)).is_some_and(|window| window.ids);
            let part = &mut parts[at];
            let wanted = &self.wanted.windows[at];
            let mut counts: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
            for (id, Seen { origin: (_, origin), content, keys, paths, others }) in seen {
                if let Some(counts) = self.elsewhere.first(at, &id) {
                    let all = others.into_iter().map(|(other, _)| other).chain([origin]);
                    let all: Vec<_> = all.collect();
                    // If one of them is new, the others may have counted before, although the one in the
                    // other window was there.
                    let is_news = !all.iter().chain([&counts]).all(|of| wanted.had(of));
                    let conflict = |origin| Conflict { origin, id: id.clone(), counts, is_news };
                    part.conflicts.extend(all.into_iter().map(conflict));
                    continue;
                }
                *counts.entry(keys).or_default() += 1;
                let mut copies = others.iter().map(|(other, _)| other).chain([&origin]);
                let had = copies.any(|copy| wanted.had(copy));
                for path in paths {
                    if !had && is_part[path as usize] {
                        part.added.push((text(path), id.clone()));
                    }
                    *sums.entry(path).or_default() += 1;
                }
                for (other, of) in &others {
                    if *of == content {
                        part.duplicates += 1;
                    } else {
                        let (origin, id, counts) = (*other, id.clone(), origin);
                        let is_news = !(wanted.had(&origin) && wanted.had(&counts));
                        part.conflicts.push(Conflict { origin, id, counts, is_news });
                    }
                }
                if ids {
                    part.ids.push(id);
                }
            }
            let of_keys = |keys: Vec<u32>| keys.into_iter().map(text).collect();
            part.counts = counts.into_iter().map(|(keys, count)| (of_keys(keys), count)).collect();
            part.paths = sums.into_iter().map(|(path, count)| (text(path), count)).collect();
            part.conflicts.sort_unstable();
        }
        frame::to_postcard(&parts)
    }
}

/// Whether a path is that of a part of a roll-up, not of a metric.
fn is_part(plan: &StreamPlan, path: &str) -> bool {
    let number = path.split(SEPARATOR).next().and_then(|number| number.parse::<usize>().ok());
    let rollup = number.and_then(|number| plan.rollups().get(number));
    rollup.is_some_and(|rollup| path.split(SEPARATOR).count() == rollup.per.len() + 2)
}
