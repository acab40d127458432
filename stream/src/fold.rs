//! Folds what a slot holds of some windows: which events count, which are copies, which contradict
//! another one. Owners of slots call it.
//!
//! Of several events with one id the first one counts: the one with the earliest time, and of those with
//! one time the one with the smallest place. Others are copies or contradictions if they are at most the
//! plan's horizon later than an event with the id, whether that one counts or not. So which events count
//! is decided for each by itself, and depends on the cut only.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortado_engine::DeltaError;
use cortado_protocol::stream::Place;
use cortado_protocol::{Coverage, Edge, frame};
use serde::{Deserialize, Serialize};

use crate::cut::Cut;
use crate::event::{Fact, Facts, SEPARATOR, facts_of};
use crate::ids::{IdIndex, IdSpan};
use crate::plan::{StreamPlan, WindowKey, start_of};
use crate::texts::Texts;

mod elsewhere;

use elsewhere::Elsewhere;

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
}

/// What was seen of one id in one window.
struct Seen {
    /// Of the event that comes first: its time, and its place.
    origin: (i64, Place),
    content: u64,
    /// Where the texts that it is grouped by stand.
    keys: Vec<u32>,
    paths: Vec<u32>,
    /// All others.
    others: Vec<(Place, u64)>,
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
            let before = self.wanted.windows[at].before.as_ref();
            let mut counts: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
            for (id, Seen { origin: (_, origin), content, keys, paths, others }) in seen {
                if let Some(counts) = self.elsewhere.first(at, &id) {
                    let all = others.into_iter().map(|(other, _)| other).chain([origin]);
                    let conflict = |origin| Conflict { origin, id: id.clone(), counts };
                    part.conflicts.extend(all.map(conflict));
                    continue;
                }
                *counts.entry(keys).or_default() += 1;
                let mut copies = others.iter().map(|(other, _)| other).chain([&origin]);
                let had =
                    copies.any(|copy| before.is_some_and(|cut| cut.has(copy.edge, copy.batch)));
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
                        let id = id.clone();
                        part.conflicts.push(Conflict { origin: *other, id, counts: origin });
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

/// Takes an event in; returns about how many bytes that takes.
fn see(
    seen: &mut BTreeMap<String, Seen>,
    id: &str,
    (origin, content): ((i64, Place), u64),
    (keys, paths): (&[u32], &[u32]),
) -> usize {
    let Some(known) = seen.get_mut(id) else {
        let (keys, paths) = (keys.to_vec(), paths.to_vec());
        let bytes = id.len() + 4 * (keys.len() + paths.len()) + 200;
        let first = Seen { origin, content, keys, paths, others: Vec::new() };
        seen.insert(id.to_owned(), first);
        return bytes;
    };
    if origin < known.origin {
        known.others.push((known.origin.1, known.content));
        (known.origin, known.content) = (origin, content);
        (known.keys, known.paths) = (keys.to_vec(), paths.to_vec());
    } else {
        known.others.push((origin.1, content));
    }
    size_of::<(Place, u64)>()
}
