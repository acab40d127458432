//! What counts in a window depends on earlier ones, too: an event contradicts others with its id. So a
//! window that was published is published again before what is new in an earlier one is.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::{Coverage, Edge};
use cortado_stream::{Cut, IdSpan, StreamPlan, Touch, WindowKey};

use super::{Published, State};

impl Published {
    /// Whether its coordinator had read what was published of another window.
    fn had_read(&self, other: &Self) -> bool {
        let of = self.outputs.iter().find(|(edge, _)| *edge == other.place.0);
        of.is_some_and(|(_, read)| *read > other.place.1)
    }
}

impl State {
    /// Where the ids of some windows are looked for: the batches that have events near them, of later windows
    /// only if they were published.
    pub(super) fn near(&self, plan: &StreamPlan, keys: &[WindowKey]) -> Vec<IdSpan> {
        let horizon = plan.horizon_ms();
        let mut starts = BTreeSet::new();
        for key in keys {
            let end = plan.end_of(*key).saturating_add(horizon);
            starts.extend(plan.id_spans(key.1.saturating_sub(horizon)..end));
        }
        let last = keys.iter().map(|key| plan.end_of(*key)).max().unwrap_or(i64::MIN);
        let span = |start_ms: i64| {
            let times = plan.id_span(start_ms);
            let windows = self.windows.range((0, times.start)..(0, times.end));
            let windows =
                windows.filter(|((_, start), of)| *start < last || of.published.is_some());
            let behind = self.behind.range(times.clone()).map(|(_, batches)| batches);
            let mut all: BTreeMap<Edge, Coverage> = BTreeMap::new();
            for (edge, numbers) in windows.map(|(_, of)| &of.batches).chain(behind).flatten() {
                all.entry(*edge).or_default().union(numbers);
            }
            IdSpan { start_ms, batches: all.into_iter().collect() }
        };
        let spans = starts.into_iter().map(span);
        spans.filter(|span| !span.batches.is_empty()).collect()
    }

    /// Windows of a round touch others: those that were published without what is new are published again
    /// first. Returns the windows of the round that have to wait for that.
    pub(crate) fn touch(&mut self, keys: &[WindowKey], touches: &[Touch]) -> BTreeSet<WindowKey> {
        let lacks = |touch: &&Touch| {
            let published = self.windows.get(&touch.later).and_then(|of| of.published.as_ref());
            published.is_some_and(|of| !of.cut.contains(&touch.batches))
        };
        let touches: Vec<_> = touches.iter().filter(lacks).collect();
        let mut waiting = BTreeSet::new();
        for touch in touches.iter().filter(|touch| !keys.contains(&touch.later)) {
            self.touched.entry(touch.later).or_default().join(&touch.batches);
            self.dirty.insert(touch.later);
            waiting.insert(touch.window);
        }
        // A window has to wait as well if it touches one that waits.
        loop {
            let more = touches.iter().filter(|touch| waiting.contains(&touch.later));
            let more: Vec<_> = more.map(|touch| touch.window).collect();
            let before = waiting.len();
            waiting.extend(more);
            if waiting.len() == before {
                return waiting;
            }
        }
    }

    /// Two coordinators may have published windows without knowing of each other: then later ones are
    /// published again with what earlier ones include.
    pub(super) fn touch_unseen(&mut self, plan: &StreamPlan, key: WindowKey) {
        let Some(own) = self.windows.get(&key).and_then(|of| of.published.as_ref()) else { return };
        let reach = plan.reach_ms();
        let (from, to) = (key.1.saturating_sub(reach), key.1.saturating_add(reach));
        let mut touched: Vec<(WindowKey, Cut)> = Vec::new();
        for (other, window) in self.windows.range((key.0, from)..=(key.0, to)) {
            let Some(of) = window.published.as_ref() else { continue };
            // What one coordinator publishes, it publishes in turn.
            if *other == key || of.place.0 == own.place.0 {
                continue;
            }
            let (earlier, later, at) =
                if *other < key { (of, own, key) } else { (own, of, *other) };
            if !later.cut.contains(&earlier.cut) && !earlier.had_read(later) {
                touched.push((at, earlier.cut.clone()));
            }
        }
        for (at, cut) in touched {
            self.touched.entry(at).or_default().join(&cut);
            self.dirty.insert(at);
        }
    }

    /// Batches of a publisher that came late for retired windows, and still decide what counts in others.
    pub(super) fn late_of(&self, edge: Edge) -> Coverage {
        let settled = self.gone.as_ref().map_or(0, |gone| gone.cut.of(edge));
        let mut late = Coverage::default();
        for batches in self.behind.values().filter_map(|batches| batches.get(&edge)) {
            late.union(batches);
        }
        late.minus(&Coverage::range(0, settled))
    }

    /// Batches with events in windows that end by a time and were not published with them: what a checkpoint
    /// settles as late. Of the first edge that has any, beside those that are known to be whole.
    pub(crate) fn loose(
        &self,
        plan: &StreamPlan,
        before_ms: i64,
        whole: &BTreeMap<Edge, Coverage>,
    ) -> Option<(Edge, Coverage)> {
        let mut all: BTreeMap<Edge, Coverage> = BTreeMap::new();
        let dirty = self.dirty.iter().filter(|key| plan.end_of(**key) <= before_ms);
        for window in dirty.filter_map(|key| self.windows.get(key)) {
            for edge in window.batches.keys() {
                all.entry(*edge).or_default().union(&window.unpublished(*edge));
            }
        }
        let nothing = Coverage::default();
        all.into_iter().find_map(|(edge, loose)| {
            let unknown = loose.minus(whole.get(&edge).unwrap_or(&nothing));
            (!unknown.is_empty()).then_some((edge, unknown))
        })
    }

    /// A retired window has batches that still decide what counts in later ones.
    pub(super) fn keep_behind(
        &mut self,
        plan: &StreamPlan,
        (kind, start_ms): WindowKey,
        batches: impl IntoIterator<Item = (Edge, Coverage)>,
    ) {
        let Some(gone) = self.gone.as_ref() else { return };
        let kept_ms = gone.before_ms.saturating_sub(plan.reach_ms());
        if kind == 0 && plan.end_of((kind, start_ms)) > kept_ms {
            let known = self.behind.entry(start_ms).or_default();
            for (edge, numbers) in batches {
                known.entry(edge).or_default().union(&numbers);
            }
        }
    }
}
