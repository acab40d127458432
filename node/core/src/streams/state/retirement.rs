//! Windows whose time of retention is over: what is left of them.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_protocol::Edge;
use cortado_protocol::stream::Retirement;
use cortado_stream::{
    Checkpoint, GoneOutput, GoneSource, GoneSpan, StreamPlan, WindowCount, WindowKey,
};

use super::{Age, Source, SpanSum, State};
use crate::stream_log::StreamLog;

impl State {
    /// Whether a window is retired.
    pub(super) fn is_gone(&self, plan: &StreamPlan, window: WindowKey) -> bool {
        self.gone.as_ref().is_some_and(|gone| plan.end_of(window) <= gone.before_ms)
    }

    /// Windows that end by then are retired.
    pub(crate) fn gone_before(&self) -> Option<i64> {
        self.gone.as_ref().map(|gone| gone.before_ms)
    }

    /// What is retired, for clients.
    pub(crate) fn retirement(&self) -> Option<Retirement> {
        let gone = self.gone.as_ref()?;
        Some(Retirement { before_ms: gone.before_ms, counted: gone.counted })
    }

    /// A batch has events in a retired window. If the checkpoint does not include the batch, they came too
    /// late to count. An event lies in one window of the plan's first kind.
    pub(super) fn came_late(&mut self, count: WindowCount, (edge, number): (Edge, u64)) {
        let settled = self.gone.as_ref().is_some_and(|gone| gone.cut.has(edge, number));
        if count.key.0 == 0 && !settled {
            self.late += u64::from(count.events);
        }
    }

    /// Windows that end by then are to be retired now, by the watermark. When all publishers are silent
    /// or have ended, it stands where the last of them was.
    pub(crate) fn retires_before(
        &self,
        log: &StreamLog,
        plan: &StreamPlan,
        now: Duration,
    ) -> Option<i64> {
        let watermark = self.watermark(log, plan, now)?;
        let reached = |backfill: bool| {
            let publishers = log.publishers.values().filter(|of| backfill || !of.backfill);
            publishers.filter_map(|of| self.sources.get(&of.edge())?.reached_ms).max()
        };
        let reached = reached(false).or_else(|| reached(true))?;
        plan.retires_before(watermark.min(reached))
    }

    /// Whether a window ends by a time, or a batch has nothing that is needed after it.
    pub(crate) fn has_older(&self, plan: &StreamPlan, before_ms: i64) -> bool {
        let kept_ms = before_ms.saturating_sub(plan.reach_ms());
        let sources = self.sources.values().map(|source| (&source.age, kept_ms));
        let ages = sources.chain(self.ages.values().map(|age| (age, before_ms)));
        let mut batches = ages.map(|(age, at)| age.after(at).0 > age.floor);
        let first = |kind| Some(*self.windows.range((kind, i64::MIN)..).next()?.0);
        let mut windows = std::iter::successors(first(0), |(kind, _)| first(kind.checked_add(1)?));
        batches.any(|gone| gone) || windows.any(|key| plan.end_of(key) <= before_ms)
    }

    /// What will be left of the windows that end by a time. All that is published of them was read.
    pub(crate) fn checkpoint(&self, plan: &StreamPlan, before_ms: i64) -> Checkpoint {
        let mut left = self.gone.as_deref().cloned().unwrap_or_default();
        (left.before_ms, left.cut) = (before_ms, self.cut());
        let delivered = self.delivered.iter();
        left.delivered = delivered.map(|(output, at)| (output.clone(), at.clone())).collect();
        left.late += self.late;
        let mut sums = self.spans.clone();
        for (key, window) in &self.windows {
            let published = window.published.as_ref();
            if plan.end_of(*key) > before_ms {
                for span in plan.spans_of(*key).filter(|_| published.is_some()) {
                    let sum = sums.entry(span).or_default();
                    sum.windows -= 1;
                    for (path, count) in published.iter().flat_map(|of| &of.paths) {
                        *sum.paths.entry(*path).or_default() -= count;
                    }
                }
                continue;
            }
            if key.0 == 0 {
                let settled = published.map_or(0, |of| of.counted + of.duplicates + of.conflicts);
                left.late += window.valid.saturating_sub(settled);
                left.counted += published.map_or(0, |of| of.counted);
                left.duplicates += published.map_or(0, |of| of.duplicates);
                left.conflicts += published.map_or(0, |of| of.conflicts);
            }
            left.windows += u64::from(published.is_some());
        }
        let before: BTreeMap<_, _> = left.sources.iter().map(|of| (of.edge, of)).collect();
        let kept_ms = before_ms.saturating_sub(plan.reach_ms());
        let source = |(edge, source): (&Edge, &Source)| {
            let (floor, [received, dead]) = source.age.after(kept_ms);
            let (ended, watermark_ms) = match source.ended && floor == source.read {
                true => (true, source.watermark_ms),
                false => (false, source.reached_ms.map(|at| at.min(before_ms))),
            };
            let known = before.get(edge);
            let received = received + known.map_or(0, |of| of.received);
            let dead = dead + known.map_or(0, |of| of.dead);
            GoneSource { edge: *edge, floor, received, dead, watermark_ms, ended }
        };
        let sources = self.sources.iter().map(source).collect();
        let before: BTreeMap<_, _> = left.outputs.iter().map(|of| (of.edge, of.rows)).collect();
        let output = |edge: &Edge| {
            let age = self.ages.get(edge);
            let (mut floor, [mut rows, _]) = age.map_or((0, [0; 2]), |age| age.after(before_ms));
            // Rows are kept until they were delivered.
            if plan.webhooks().iter().any(|of| self.delivered(&of.output).of(*edge).0 < floor) {
                (floor, rows) = (age.map_or(0, |age| age.floor), 0);
            }
            let rows = rows + before.get(edge).copied().unwrap_or_default();
            GoneOutput { edge: *edge, floor, rows }
        };
        let outputs = self.outputs.keys().map(output).collect();
        (left.sources, left.outputs) = (sources, outputs);
        let kept = |(span, sum): &(WindowKey, SpanSum)| {
            plan.span_end(*span) > before_ms && sum.windows > 0
        };
        let sums = sums.into_iter().filter(kept);
        let text = |(path, count): (u32, u64)| (self.paths.value(path).to_owned(), count);
        let paths = |paths: BTreeMap<u32, u64>| {
            let paths = paths.into_iter().filter(|(_, count)| *count > 0).map(text);
            let mut paths: Vec<_> = paths.collect();
            paths.sort_unstable();
            paths
        };
        let span = |(key, sum): (WindowKey, SpanSum)| GoneSpan {
            key,
            windows: sum.windows,
            paths: paths(sum.paths),
        };
        left.spans = sums.map(span).collect();
        left
    }

    /// Windows are retired. Whoever made the checkpoint goes on with what it knows of the others, and
    /// everybody else reads again from the floors: another coordinator may have read other batches.
    pub(super) fn take_checkpoint(&mut self, now: Duration, plan: &StreamPlan, left: &Checkpoint) {
        if self.gone.as_ref().is_some_and(|gone| gone.before_ms >= left.before_ms) {
            return;
        }
        if self.cut() != left.cut {
            *self = Self::resumed(now, left);
            return;
        }
        let before_ms = left.before_ms;
        self.gone = Some(Box::new(left.clone()));
        let kept_ms = before_ms.saturating_sub(plan.reach_ms());
        self.behind.retain(|start, _| plan.end_of((0, *start)) > kept_ms);
        let retired = self.windows.extract_if(.., |key, _| plan.end_of(*key) <= before_ms);
        for (key, window) in retired.collect::<Vec<_>>() {
            self.keep_behind(plan, key, window.batches);
        }
        self.touched.retain(|key, _| plan.end_of(*key) > before_ms);
        self.dirty.retain(|key| plan.end_of(*key) > before_ms);
        self.spans.retain(|span, _| plan.span_end(*span) > before_ms);
        self.sources.values_mut().for_each(|source| source.age.retire(kept_ms));
        for GoneOutput { edge, floor, .. } in &left.outputs {
            let age = self.ages.get_mut(edge);
            if let Some(age) = age.filter(|age| *floor > age.floor) {
                age.retire(before_ms);
            }
        }
        self.late = 0;
    }

    /// What a coordinator knows that begins with a checkpoint. It reads on from the floors.
    pub(super) fn resumed(now: Duration, left: &Checkpoint) -> Self {
        let (included, until_ms) = (left.cut.clone(), left.before_ms);
        let mut state = Self { included, until_ms, ..Self::default() };
        state.take_delivered(&left.delivered);
        for of in &left.sources {
            let GoneSource { edge, floor, received, dead, watermark_ms, ended } = *of;
            let mut source = Source::new(now);
            (source.read, source.received, source.dead) = (floor, received, dead);
            (source.ended, source.watermark_ms) = (ended, watermark_ms);
            source.reached_ms = watermark_ms.map(|at| at.min(until_ms));
            source.age = Age::from(floor);
            state.sources.insert(edge, source);
        }
        for GoneOutput { edge, floor, rows } in &left.outputs {
            state.outputs.insert(*edge, *floor);
            state.ages.insert(*edge, Age::from(*floor));
            state.rows += rows;
        }
        for GoneSpan { key, windows, paths } in &left.spans {
            let paths = paths.iter().map(|(path, count)| (state.paths.number(path), *count));
            let sum = SpanSum { windows: *windows, paths: paths.collect() };
            state.spans.insert(*key, sum);
        }
        state.gone = Some(Box::new(left.clone()));
        state
    }
}
