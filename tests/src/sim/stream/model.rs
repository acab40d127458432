//! What one process counts, in one set.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::stream::Place;
use cortado_stream::time_text;

use super::feed::{Feed, Line, time_of};

/// The windows of the plan, in milliseconds.
const EVERY_MS: i64 = 1_000;
/// An event contradicts one with its id that is at most so much earlier, in milliseconds.
pub(super) const HORIZON_MS: i64 = 2_100;

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
        let mut events: BTreeMap<u64, BTreeMap<(i64, Place), u64>> = BTreeMap::new();
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
                            let at = (time_of(*id, *content), origin);
                            events.entry(*id).or_default().insert(at, *content);
                        }
                    }
                }
            }
        }
        for copies in events.into_values() {
            // The first one of its window, and whether it counts.
            let mut first: Option<(i64, u64, bool)> = None;
            let mut before: Option<i64> = None;
            for ((at_ms, origin), content) in copies {
                let start = at_ms.div_euclid(EVERY_MS) * EVERY_MS;
                let window = model.windows.entry(time_text(start)).or_default();
                let is_close = before.is_some_and(|before| at_ms - before <= HORIZON_MS);
                before = Some(at_ms);
                let own = first.filter(|(window, ..)| *window == start);
                match own {
                    None if !is_close => {
                        *window.stats.entry(format!("k{}", content % 3)).or_default() += 1;
                    }
                    Some((_, counts, true)) if counts == content => window.copies.0 += 1,
                    _ => {
                        window.copies.1 += 1;
                        model.conflicts.insert(origin.to_text());
                    }
                }
                first = own.or(Some((start, content, !is_close)));
            }
        }
        model
    }
}
