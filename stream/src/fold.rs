//! Folds what a slot holds of some windows: which events count, which are copies, which contradict
//! an event that counts. Owners of slots call it.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortado_engine::DeltaError;
use cortado_protocol::{Coverage, Edge, frame};
use serde::{Deserialize, Serialize};

use crate::event::{Fact, Facts, Origin};
use crate::plan::{StreamPlan, WindowKey, start_of};

/// What a round folds.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// The windows, in order.
    pub windows: Vec<WantedWindow>,
}

/// A window, and the batches of the cut that have events in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedWindow {
    /// The window.
    pub key: WindowKey,
    /// The batches, by edge.
    pub batches: Vec<(Edge, Coverage)>,
}

impl Wanted {
    /// The batches of all windows.
    #[must_use]
    pub fn batches(&self) -> BTreeMap<Edge, Coverage> {
        let mut all: BTreeMap<Edge, Coverage> = BTreeMap::new();
        for (edge, coverage) in self.windows.iter().flat_map(|window| &window.batches) {
            all.entry(*edge).or_default().union(coverage);
        }
        all
    }
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
}

/// An event with the id of another one, and other content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Conflict {
    pub(crate) origin: Origin,
    pub(crate) id: String,
    /// The event that counts.
    pub(crate) counts: Origin,
}

/// What was seen of one id in one window.
struct Seen {
    /// The event that counts so far.
    origin: Origin,
    content: u64,
    /// Where the texts that it is grouped by stand.
    keys: Vec<u32>,
    /// All others.
    others: Vec<(Origin, u64)>,
}

/// The fold of one slot. The order in which deltas are added has no effect.
pub struct WindowFold<'a> {
    plan: &'a StreamPlan,
    wanted: &'a Wanted,
    windows: BTreeMap<WindowKey, (usize, BTreeMap<String, Seen>)>,
    texts: Vec<String>,
    text_numbers: BTreeMap<String, u32>,
    bytes: usize,
}

impl<'a> WindowFold<'a> {
    /// A fold without events.
    #[must_use]
    pub fn new(plan: &'a StreamPlan, wanted: &'a Wanted) -> Self {
        let windows = wanted.windows.iter().enumerate();
        let windows = windows.map(|(at, window)| (window.key, (at, BTreeMap::new()))).collect();
        let (texts, text_numbers) = (Vec::new(), BTreeMap::new());
        Self { plan, wanted, windows, texts, text_numbers, bytes: 0 }
    }

    /// Adds a batch's delta.
    ///
    /// # Errors
    /// If the bytes are no delta of this plan.
    pub fn add(&mut self, edge: Edge, batch: u64, delta: &[u8]) -> Result<(), DeltaError> {
        if delta.is_empty() {
            return Ok(());
        }
        let malformed = DeltaError::Malformed("facts of events");
        let Some(Facts { texts, facts }) = Facts::decode(delta) else { return Err(malformed) };
        let numbers: Vec<_> = texts.into_iter().map(|text| self.number(text)).collect();
        for fact in facts {
            let Fact { id, at_ms, content, position, keys } = fact;
            let keys: Vec<_> = keys.iter().map(|key| numbers[*key as usize]).collect();
            let origin = Origin { edge, batch, position };
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
                    self.bytes += see(seen, &id, origin, content, own);
                }
            }
        }
        Ok(())
    }

    fn number(&mut self, text: String) -> u32 {
        if let Some(number) = self.text_numbers.get(&text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.clone());
        self.text_numbers.insert(text, number);
        number
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
        for ((number, _), (at, seen)) in self.windows {
            let ids = self.plan.windows().get(usize::from(number)).is_some_and(|window| window.ids);
            let part = &mut parts[at];
            for (id, Seen { origin, content, keys, others }) in seen {
                let texts = keys.iter().map(|key| self.texts[*key as usize].clone()).collect();
                *part.counts.entry(texts).or_default() += 1;
                for (other, of) in others {
                    if of == content {
                        part.duplicates += 1;
                    } else {
                        let id = id.clone();
                        part.conflicts.push(Conflict { origin: other, id, counts: origin });
                    }
                }
                if ids {
                    part.ids.push(id);
                }
            }
            part.conflicts.sort_unstable();
        }
        frame::to_postcard(&parts)
    }
}

/// Takes an event in; returns about how many bytes that takes.
fn see(
    seen: &mut BTreeMap<String, Seen>,
    id: &str,
    origin: Origin,
    content: u64,
    keys: &[u32],
) -> usize {
    let Some(known) = seen.get_mut(id) else {
        let first = Seen { origin, content, keys: keys.to_vec(), others: Vec::new() };
        seen.insert(id.to_owned(), first);
        return id.len() + 4 * keys.len() + 160;
    };
    if origin < known.origin {
        known.others.push((known.origin, known.content));
        (known.origin, known.content, known.keys) = (origin, content, keys.to_vec());
    } else {
        known.others.push((origin, content));
    }
    size_of::<(Origin, u64)>()
}
