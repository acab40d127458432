//! What a coordinator knows of a stream: how far its publishers are, which windows have which
//! batches, and what was published. All of it can be read again from the ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cortado_protocol::stream::{Cursor, EventCounts, Publisher, Seal};
use cortado_protocol::{Coverage, Edge};
use cortado_stream::{
    Checkpoint, Cut, Known, Recent, Span, StreamPlan, Texts, Wanted, WantedWindow, WindowKey,
};

use super::age::Age;
use crate::stream_log::StreamLog;
use crate::stream_task::{Brief, PublishedBatch};

mod near;
mod retirement;

/// Most windows of a round.
const WINDOWS_PER_ROUND: usize = 64;
/// Events after which a round takes no more windows.
const EVENTS_PER_ROUND: u64 = 20_000;

/// What is known of the batches of one edge.
#[derive(Debug)]
pub(super) struct Source {
    /// Batches whose summaries were read: a gap-free prefix.
    pub(super) read: u64,
    /// The highest of their low watermarks.
    pub(super) watermark_ms: Option<i64>,
    /// Whether the last of them is the edge's last one.
    pub(super) ended: bool,
    /// The same without what says that it has ended, and no later than an event may be.
    reached_ms: Option<i64>,
    pub(super) received: u64,
    pub(super) dead: u64,
    /// When the last of them was read.
    pub(super) heard_at: Duration,
    /// No event of these batches is later, in milliseconds since the Unix epoch.
    until_ms: i64,
    /// How old its batches are.
    age: Age,
}

/// What is known of one window.
#[derive(Debug, Default)]
struct Window {
    /// The batches that have events in it.
    batches: BTreeMap<Edge, Coverage>,
    /// Valid events in it, copies counted.
    valid: u64,
    /// What was published of it last.
    published: Option<Published>,
}

/// What was published of a window.
#[derive(Debug)]
struct Published {
    /// The batches that were included.
    cut: Cut,
    counted: u64,
    duplicates: u64,
    conflicts: u64,
    /// What it adds to roll-ups: numbers of paths, and counts.
    paths: Box<[(u32, u64)]>,
    /// Its counts, by numbers of texts, if there are alerts over it.
    groups: Box<[(Box<[u32]>, u64)]>,
    /// Of which groups there is an alert.
    alerts: Box<[(u16, Box<[u32]>)]>,
    /// The output batch that it is in.
    place: (Edge, u64),
    /// How many batches of each edge of outputs its coordinator had read.
    outputs: Arc<[(Edge, u64)]>,
}

impl Window {
    /// Whether it has batches that were not published with it, or is touched by others.
    fn is_dirty(&self, touched: Option<&Cut>) -> bool {
        let Some(Published { cut, .. }) = &self.published else { return true };
        if touched.is_some_and(|touched| !cut.contains(touched)) {
            return true;
        }
        let has = |(edge, batches): (&Edge, &Coverage)| {
            batches.intervals().last().is_none_or(|(_, end)| *end <= cut.of(*edge))
        };
        !self.batches.iter().all(has)
    }

    /// Its batches of an edge that were not published with it.
    fn unpublished(&self, edge: Edge) -> Coverage {
        let Some(batches) = self.batches.get(&edge) else { return Coverage::default() };
        let included = self.published.as_ref().map_or(0, |published| published.cut.of(edge));
        batches.minus(&Coverage::range(0, included))
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sources: BTreeMap<Edge, Source>,
    windows: BTreeMap<WindowKey, Window>,
    /// Windows with batches that were not published with them, or that are touched.
    dirty: BTreeSet<WindowKey>,
    /// Windows that were published and have to be again, with these batches at least.
    touched: BTreeMap<WindowKey, Cut>,
    /// The batches of retired windows that still decide what counts in others, by start of the window.
    behind: BTreeMap<i64, BTreeMap<Edge, Coverage>>,
    /// Batches with dead letters that no output includes yet, and how many.
    dead: BTreeMap<(Edge, u64), u64>,
    /// What all outputs together include.
    included: Cut,
    /// How far rows were delivered to webhooks, by output.
    delivered: BTreeMap<String, Cursor>,
    /// Output batches that were read, by edge: a gap-free prefix.
    pub(super) outputs: BTreeMap<Edge, u64>,
    /// How old they are.
    ages: BTreeMap<Edge, Age>,
    /// Sealed publishers whose seals were taken in.
    sealed: BTreeSet<Edge>,
    /// What is left of the windows that are retired.
    gone: Option<Box<Checkpoint>>,
    /// Events in retired windows that came too late to count, and that the checkpoint does not include.
    late: u64,
    /// No event of the batches that were read is later.
    until_ms: i64,
    /// Window rows published.
    pub(super) rows: u64,
    /// The paths of roll-ups, and the texts by which windows group.
    paths: Texts,
    /// The sums of the windows as they were published last, by span of a roll-up.
    spans: BTreeMap<WindowKey, SpanSum>,
}

/// The sum of the published windows of a span of a roll-up.
#[derive(Clone, Debug, Default)]
struct SpanSum {
    windows: u64,
    /// By number of the path.
    paths: BTreeMap<u32, u64>,
}

/// What a round is to publish.
pub(super) struct Round {
    pub(super) cut: Cut,
    pub(super) wanted: Wanted,
    /// The batches with dead letters that are included for the first time.
    pub(super) fresh: Vec<(Edge, Coverage)>,
    /// What else is known.
    pub(super) known: Known,
}

impl State {
    /// Takes the summaries of batches in, which follow those read before. With `drop_late`, windows that
    /// were published stay as they are: a fault for the simulator to find.
    pub(super) fn read(
        &mut self,
        (now, drop_late): (Duration, bool),
        plan: &StreamPlan,
        briefs: Vec<Brief>,
        seals: Option<&BTreeMap<Edge, Seal>>,
    ) {
        for brief in briefs {
            let (edge, number) = (brief.edge, brief.number);
            let source = self.sources.entry(edge).or_insert_with(|| Source::new(now));
            let seal = seals.and_then(|seals| seals.get(&edge));
            if seal.map_or(source.read, |seal| seal.next(source.read)) != number {
                continue;
            }
            source.take(now, plan, &brief);
            self.until_ms = self.until_ms.max(source.until_ms);
            for count in brief.windows {
                if self.is_gone(plan, count.key) {
                    self.came_late(count, (edge, number));
                    let batch = Coverage::range(number, number + 1);
                    self.keep_behind(plan, count.key, [(edge, batch)]);
                    continue;
                }
                let window = self.windows.entry(count.key).or_default();
                window.batches.entry(edge).or_default().insert(number);
                window.valid += u64::from(count.events);
                let touched = self.touched.get(&count.key);
                if window.is_dirty(touched) && !(drop_late && window.published.is_some()) {
                    self.dirty.insert(count.key);
                }
            }
            if brief.dead > 0 && !self.included.has(edge, number) {
                self.dead.insert((edge, number), brief.dead);
            }
        }
    }

    /// Takes what was published in.
    pub(super) fn published(&mut self, now: Duration, plan: &StreamPlan, batch: &PublishedBatch) {
        if let Some(gone) = &batch.retired {
            self.take_checkpoint(now, plan, gone);
        }
        let read = self.outputs.entry(batch.edge).or_default();
        if *read != batch.number {
            return;
        }
        *read += 1;
        self.take_delivered(&batch.delivered);
        let rows = batch.windows.len() as u64;
        self.rows += rows;
        if let Some(step_ms) = plan.retention_step_ms() {
            let age = self.ages.entry(batch.edge).or_default();
            age.add(step_ms, batch.until_ms, 1, [rows, 0]);
        }
        let outputs: Arc<[_]> = batch.outputs.as_slice().into();
        for published in &batch.windows {
            // Its checkpoint says more.
            if self.is_gone(plan, published.key) {
                continue;
            }
            let window = self.windows.entry(published.key).or_default();
            let before = window.published.as_ref();
            if before.is_none_or(|before| is_newer(&batch.cut, &before.cut)) {
                let paths = published.paths.iter();
                let paths = paths.map(|(path, count)| (self.paths.number(path), *count)).collect();
                let texts = &mut self.paths;
                let mut numbers = |group: &[String]| {
                    group.iter().map(|text| texts.number(text)).collect::<Box<[_]>>()
                };
                let groups = published.groups.iter();
                let groups = groups.map(|(group, count)| (numbers(group), *count)).collect();
                let alerts = published.alerts.iter();
                let alerts = alerts.map(|(rule, group)| (*rule, numbers(group))).collect();
                let now = Published {
                    groups,
                    alerts,
                    place: (batch.edge, batch.number),
                    outputs: Arc::clone(&outputs),
                    cut: batch.cut.clone(),
                    counted: published.counted,
                    duplicates: published.duplicates,
                    conflicts: published.conflicts,
                    paths,
                };
                for span in plan.spans_of(published.key) {
                    let sum = self.spans.entry(span).or_default();
                    sum.windows += u64::from(before.is_none());
                    let sums = &mut sum.paths;
                    now.paths.iter().for_each(|(path, n)| *sums.entry(*path).or_default() += n);
                    for (path, n) in before.iter().flat_map(|before| &before.paths) {
                        *sums.entry(*path).or_default() -= n;
                    }
                }
                window.published = Some(now);
            }
            let touched = self.touched.get(&published.key);
            if !window.is_dirty(touched) {
                self.dirty.remove(&published.key);
                self.touched.remove(&published.key);
            }
            self.touch_unseen(plan, published.key);
        }
        self.included.join(&batch.cut);
        let included = &self.included;
        self.dead.retain(|(edge, number), _| !included.has(*edge, *number));
    }

    /// Takes in how far rows were delivered to webhooks.
    pub(super) fn take_delivered(&mut self, delivered: &[(String, Cursor)]) {
        for (output, cursor) in delivered {
            self.delivered.entry(output.clone()).or_default().join(cursor);
        }
    }

    /// How far the rows of an output were delivered to its webhook.
    pub(super) fn delivered(&self, output: &str) -> Cursor {
        self.delivered.get(output).cloned().unwrap_or_default()
    }

    /// Where the rows of the newest windows begin.
    pub(super) fn latest(&self, windows: usize) -> Cursor {
        let published =
            |(key, window): (&WindowKey, &Window)| Some((key.1, window.published.as_ref()?.place));
        let mut newest: Vec<_> = self.windows.iter().filter_map(published).collect();
        newest.sort_unstable_by_key(|(start, _)| std::cmp::Reverse(*start));
        let mut first = self.outputs.clone();
        for (_, (edge, batch)) in newest.into_iter().take(windows) {
            first.entry(edge).and_modify(|first| *first = batch.min(*first)).or_insert(batch);
        }
        let mut cursor = Cursor::default();
        first.into_iter().for_each(|(edge, batch)| cursor.advance(edge, batch, 0));
        cursor
    }

    /// How many batches of a publisher or of an output were read.
    pub(super) fn read_of(&self, edge: Edge) -> u64 {
        let of_output = self.outputs.get(&edge).copied();
        of_output.or_else(|| Some(self.sources.get(&edge)?.read)).unwrap_or_default()
    }

    /// No event of the batches that were read is later, in milliseconds since the Unix epoch.
    pub(super) fn until_ms(&self) -> i64 {
        self.until_ms
    }

    /// What all outputs together include.
    pub(super) fn included(&self) -> &Cut {
        &self.included
    }

    /// Whether all batches were read that any output includes. A coordinator that has just begun may
    /// know more of what was published than of the batches.
    pub(super) fn has_caught_up(&self) -> bool {
        self.cut().contains(&self.included)
    }

    /// Whether so many dead letters wait to be published that no more batches are read before.
    pub(super) fn is_full(&self, limit: u64) -> bool {
        self.dead.values().sum::<u64>() >= limit
    }

    /// No window that ends later is closed; `None` if a publisher has sent nothing yet. Publishers
    /// that have ended, import old data or are silent hold nobody back: without any other, all windows
    /// are closed, and what comes later makes a revision.
    pub(super) fn watermark(
        &self,
        log: &StreamLog,
        plan: &StreamPlan,
        now: Duration,
    ) -> Option<i64> {
        let mut lowest = Some(i64::MAX);
        let mut any = false;
        for publisher in log.publishers.values() {
            any = true;
            let source = self.sources.get(&publisher.edge());
            if publisher.backfill || source.is_some_and(|source| source.is_past(plan, now)) {
                continue;
            }
            lowest = lowest.min(source.and_then(|source| source.watermark_ms));
        }
        lowest.filter(|_| any)
    }

    /// Begins to wait for publishers of which nothing was read yet. Those of which everything was read that
    /// counts have ended.
    pub(super) fn expect(&mut self, now: Duration, log: &StreamLog) {
        let fresh = log.seals.iter().filter(|(edge, _)| !self.sealed.contains(edge));
        let unread = |(edge, seal): (&Edge, &Seal)| {
            let read = Coverage::range(0, self.read_of(*edge));
            !read.and(&seal.void).is_empty()
        };
        // A batch was read that does not count: all is read again, without it.
        if fresh.into_iter().any(unread) {
            *self = self.gone.take().map_or_else(Self::default, |left| Self::resumed(now, &left));
        }
        for edge in log.publishers.keys() {
            self.sources.entry(*edge).or_insert_with(|| Source::new(now));
        }
        for (edge, seal) in &log.seals {
            self.sealed.insert(*edge);
            let source = self.sources.entry(*edge).or_insert_with(|| Source::new(now));
            if seal.next(source.read) >= seal.end {
                source.read = source.read.max(seal.end);
                source.ended = true;
            }
        }
    }

    /// Whether a window with batches of a publisher is not published with all of them, or some came late for
    /// a retired window, and still decide what counts in others.
    pub(super) fn has_unpublished(&self, edge: Edge) -> bool {
        let open = self.dirty.iter().filter_map(|key| self.windows.get(key));
        !self.late_of(edge).is_empty()
            || open.into_iter().any(|window| !window.unpublished(edge).is_empty())
    }

    /// Batches of a publisher that were read and that no published window includes, although they have
    /// events in windows.
    pub(super) fn unpublished(&self, edge: Edge) -> Coverage {
        let (mut published, mut open) = (Coverage::default(), self.late_of(edge));
        for window in self.windows.values() {
            let Some(batches) = window.batches.get(&edge) else { continue };
            let unpublished = window.unpublished(edge);
            published.union(&batches.minus(&unpublished));
            open.union(&unpublished);
        }
        open.minus(&published)
    }

    /// The batches that were read.
    pub(super) fn cut(&self) -> Cut {
        self.sources.iter().map(|(edge, source)| (*edge, source.read)).collect()
    }

    /// What can be published now, if anything. Windows that end by `frozen_ms` get no revision any more.
    pub(super) fn next_round(
        &self,
        plan: &StreamPlan,
        watermark_ms: Option<i64>,
        frozen_ms: Option<i64>,
    ) -> Option<Round> {
        let is_frozen = |key: &WindowKey| frozen_ms.is_some_and(|at| plan.end_of(*key) <= at);
        let is_closed = |key: &WindowKey| watermark_ms.is_some_and(|at| plan.closes(*key, at));
        let open = self.dirty.iter().copied().filter(|key| !is_frozen(key));
        let (touched, others): (Vec<_>, Vec<_>) =
            open.partition(|key| self.touched.contains_key(key));
        let closed: Vec<_> = others.into_iter().filter(is_closed).collect();
        let mut keys = Vec::new();
        let mut events = 0;
        // Others may wait for those that are touched. Of both there is always one, so that both go on.
        for all in [touched, closed] {
            let first = keys.len();
            for key in all {
                let is_full = keys.len() >= WINDOWS_PER_ROUND || events >= EVENTS_PER_ROUND;
                if is_full && keys.len() > first {
                    break;
                }
                keys.push(key);
                events += self.windows[&key].valid;
            }
        }
        keys.sort_unstable();
        if keys.is_empty() && self.dead.is_empty() {
            return None;
        }
        let windows = keys.iter().map(|key| {
            let Window { batches, valid, published } = &self.windows[key];
            let batches = batches.iter().map(|(edge, coverage)| (*edge, coverage.clone()));
            let before = published.as_ref().map(|before| before.cut.clone());
            WantedWindow { key: *key, batches: batches.collect(), valid: *valid, before }
        });
        let mut fresh: BTreeMap<Edge, Coverage> = BTreeMap::new();
        for (edge, number) in self.dead.keys() {
            fresh.entry(*edge).or_default().insert(*number);
        }
        Some(Round {
            cut: self.cut(),
            wanted: Wanted { windows: windows.collect(), near: self.near(plan, &keys) },
            fresh: fresh.into_iter().collect(),
            known: self.known(plan, &keys),
        })
    }

    /// What a round of some windows needs beside the slots' parts.
    pub(super) fn known(&self, plan: &StreamPlan, keys: &[WindowKey]) -> Known {
        Known {
            spans: self.spans(plan, keys),
            recent: self.recent(plan, keys),
            first: self.first(plan, keys),
            until_ms: self.until_ms,
            outputs: self.outputs.iter().map(|(edge, read)| (*edge, *read)).collect(),
            left_out: None,
        }
    }

    /// What was published last of windows over which there are alerts, and of those that they are compared
    /// with.
    fn recent(&self, plan: &StreamPlan, keys: &[WindowKey]) -> Vec<Recent> {
        let mut near: BTreeMap<WindowKey, &Published> = BTreeMap::new();
        for key in keys {
            let lookback = plan.lookback(key.0);
            if lookback > 0 {
                let from = plan.before(*key, lookback);
                let published = self.windows.range(from..=*key);
                near.extend(published.filter_map(|(of, w)| Some((*of, w.published.as_ref()?))));
            }
        }
        let text = |number: &u32| self.paths.value(*number).to_owned();
        let texts = |numbers: &[u32]| numbers.iter().map(text).collect::<Vec<_>>();
        let recent = |(key, of): (WindowKey, &Published)| Recent {
            key,
            revision: of.cut.batches(),
            counts: of.groups.iter().map(|(group, count)| (texts(group), *count)).collect(),
            alerts: of.alerts.iter().map(|(rule, group)| (*rule, texts(group))).collect(),
        };
        near.into_iter().map(recent).collect()
    }

    /// The first window of each kind among those over which there are alerts.
    fn first(&self, plan: &StreamPlan, keys: &[WindowKey]) -> Vec<WindowKey> {
        let kinds: BTreeSet<_> = keys.iter().map(|(kind, _)| *kind).collect();
        let kinds = kinds.into_iter().filter(|kind| plan.lookback(*kind) > 0);
        kinds.filter_map(|kind| Some(*self.windows.range((kind, i64::MIN)..).next()?.0)).collect()
    }

    /// The spans of roll-ups that windows belong to, without what these windows add to them now.
    fn spans(&self, plan: &StreamPlan, keys: &[WindowKey]) -> Vec<Span> {
        let mut spans: BTreeMap<WindowKey, (SpanSum, BTreeSet<u32>)> = BTreeMap::new();
        for key in keys {
            let published = &self.windows[key].published;
            let own: Vec<_> = published.iter().flat_map(|before| &before.paths).collect();
            for span in plan.spans_of(*key) {
                let sums = || self.spans.get(&span).cloned().unwrap_or_default();
                let (sum, before) = spans.entry(span).or_insert_with(|| (sums(), BTreeSet::new()));
                sum.windows += u64::from(published.is_none());
                for (path, count) in &own {
                    *sum.paths.entry(*path).or_default() -= count;
                    before.insert(*path);
                }
            }
        }
        let text = |path: u32| self.paths.value(path).to_owned();
        let span = |(key, (sum, before)): (WindowKey, (SpanSum, BTreeSet<u32>))| Span {
            key,
            windows: sum.windows,
            others: sum.paths.into_iter().map(|(path, count)| (text(path), count)).collect(),
            before: before.into_iter().map(text).collect(),
        };
        spans.into_iter().map(span).collect()
    }

    /// Whether everything read was published.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.dead.is_empty()
    }

    /// Whether all publishers have ended.
    pub(super) fn have_ended(&self, log: &StreamLog) -> bool {
        log.publishers.values().all(|publisher| self.has_ended(publisher))
    }

    /// Whether a publisher has ended: whether its last batch, and all before it, are durable.
    pub(super) fn has_ended(&self, publisher: &Publisher) -> bool {
        self.sources.get(&publisher.edge()).is_some_and(|source| source.ended)
    }

    /// Events by what became of them. An event lies in one window of each kind; those of the plan's
    /// first kind are counted.
    pub(super) fn counts(&self) -> EventCounts {
        let mut counts = EventCounts { retired: self.late, ..EventCounts::default() };
        if let Some(gone) = &self.gone {
            counts.counted += gone.counted;
            counts.duplicates += gone.duplicates;
            counts.dead += gone.conflicts;
            counts.retired += gone.late;
        }
        for source in self.sources.values() {
            counts.received += source.received;
            counts.dead += source.dead;
        }
        for window in self.windows.range(..(1, i64::MIN)).map(|(_, window)| window) {
            let mut settled = 0;
            if let Some(published) = &window.published {
                counts.counted += published.counted;
                counts.duplicates += published.duplicates;
                counts.dead += published.conflicts;
                settled = published.counted + published.duplicates + published.conflicts;
            }
            counts.open += window.valid.saturating_sub(settled);
        }
        counts
    }

    /// Windows that have not been published, and those that have.
    pub(super) fn window_counts(&self) -> (u64, u64) {
        let published = self.windows.values().filter(|w| w.published.is_some()).count() as u64;
        let gone = self.gone.as_ref().map_or(0, |gone| gone.windows);
        (self.windows.len() as u64 - published, published + gone)
    }
}

impl Source {
    fn new(now: Duration) -> Self {
        Self {
            read: 0,
            watermark_ms: None,
            ended: false,
            reached_ms: None,
            received: 0,
            dead: 0,
            heard_at: now,
            until_ms: i64::MIN,
            age: Age::default(),
        }
    }

    /// Takes the summary of the next batch in.
    fn take(&mut self, now: Duration, plan: &StreamPlan, brief: &Brief) {
        let Brief { low_watermark_ms, sent_at_ms, last, received, dead, .. } = *brief;
        let batches = brief.number + 1 - self.read;
        self.read += batches;
        self.ended = last;
        self.received += received;
        self.dead += dead;
        self.heard_at = now;
        if last {
            self.watermark_ms = self.watermark_ms.max(Some(low_watermark_ms));
        } else {
            // An event later than that is a dead letter, so there is none before a later watermark.
            let latest_ms = sent_at_ms.saturating_add(plan.future_ms());
            self.reached_ms = self.reached_ms.max(Some(low_watermark_ms.min(latest_ms)));
            self.watermark_ms = self.watermark_ms.max(self.reached_ms);
        }
        let ends = brief.windows.iter().map(|count| plan.end_of(count.key));
        let until_ms = ends.max().max(self.reached_ms).unwrap_or(i64::MIN);
        self.until_ms = self.until_ms.max(until_ms);
        if let Some(step_ms) = plan.retention_step_ms() {
            self.age.add(step_ms, until_ms, batches, [received, dead]);
        }
    }

    /// Whether nothing came for so long that windows do not wait.
    pub(super) fn is_idle(&self, plan: &StreamPlan, now: Duration) -> bool {
        let idle = Duration::from_millis(plan.idle_ms().unsigned_abs());
        !self.ended && now >= self.heard_at + idle
    }

    fn is_past(&self, plan: &StreamPlan, now: Duration) -> bool {
        self.ended || self.is_idle(plan, now)
    }
}

/// Whether a cut supersedes another one: whether it contains it. Of two of which neither contains the
/// other, one supersedes for everybody, until their join is published.
fn is_newer(cut: &Cut, before: &Cut) -> bool {
    cut.contains(before)
        || !before.contains(cut)
            && (cut.batches(), cut.hash_text()) > (before.batches(), before.hash_text())
}

#[cfg(test)]
mod tests;
