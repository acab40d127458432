//! What one process counts, in one set.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::stream::Place;
use cortado_stream::time_text;

use super::feed::{Feed, Line, time_of};

/// The windows of the plan, in milliseconds.
const EVERY_MS: i64 = 1_000;

/// What is counted in a window.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) stats: BTreeMap<String, u64>,
    /// Equal copies, and contradictions.
    pub(super) copies: (u64, u64),
}

/// What one process counts.
#[derive(Default)]
pub(super) struct Model {
    pub(super) windows: BTreeMap<String, Counted>,
    pub(super) bad: BTreeSet<String>,
    pub(super) conflicts: BTreeSet<String>,
    /// The id and the line of each valid event.
    pub(super) valid: BTreeMap<Place, (String, String)>,
}

impl Model {
    /// `counts` says which batches of each feed count.
    pub(super) fn of(feeds: &[Feed], counts: impl Fn(usize, u64) -> bool) -> Self {
        let mut model = Self::default();
        let mut events: BTreeMap<u64, BTreeMap<Place, u64>> = BTreeMap::new();
        for (of, feed) in feeds.iter().enumerate() {
            let edge = feed.publisher.edge();
            let batches = (0..).zip(&feed.batches).filter(|(batch, _)| counts(of, *batch));
            for (batch, (lines, _)) in batches {
                for (position, line) in (0..).zip(lines) {
                    let origin = Place { edge, batch, position };
                    match line {
                        Line::Bad => drop(model.bad.insert(origin.to_text())),
                        Line::Event(id, content) => {
                            model.valid.insert(origin, (format!("e{id}"), line.text()));
                            events.entry(*id).or_default().insert(origin, *content);
                        }
                    }
                }
            }
        }
        for (id, copies) in events {
            let start = time_of(id).div_euclid(EVERY_MS) * EVERY_MS;
            let window = model.windows.entry(time_text(start)).or_default();
            let mut copies = copies.into_iter();
            let Some((_, counts)) = copies.next() else { continue };
            *window.stats.entry(format!("k{}", counts % 3)).or_default() += 1;
            for (origin, content) in copies {
                if content == counts {
                    window.copies.0 += 1;
                } else {
                    window.copies.1 += 1;
                    model.conflicts.insert(origin.to_text());
                }
            }
        }
        model
    }
}
