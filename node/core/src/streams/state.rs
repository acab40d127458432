//! What a coordinator knows of a stream: how far its publishers are, which windows have which
//! batches, and what was published. All of it can be read again from the ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::stream::{EventCounts, Publisher};
use cortado_protocol::{Coverage, Edge};
use cortado_stream::{
    Cut, Known, Recent, Span, StreamPlan, Texts, Wanted, WantedWindow, WindowKey,
};

use crate::stream_log::StreamLog;
use crate::stream_task::{Brief, PublishedBatch};

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
    pub(super) received: u64,
    pub(super) dead: u64,
    /// When the last of them was read.
    pub(super) heard_at: Duration,
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
}

impl Window {
    /// Whether it has batches that were not published with it.
    fn is_dirty(&self) -> bool {
        let Some(Published { cut, .. }) = &self.published else { return true };
        let has = |(edge, batches): (&Edge, &Coverage)| {
            batches.intervals().last().is_none_or(|(_, end)| *end <= cut.of(*edge))
        };
        !self.batches.iter().all(has)
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sources: BTreeMap<Edge, Source>,
    windows: BTreeMap<WindowKey, Window>,
    /// Windows with batches that were not published with them.
    dirty: BTreeSet<WindowKey>,
    /// Batches with dead letters that no output includes yet, and how many.
    dead: BTreeMap<(Edge, u64), u64>,
    /// What all outputs together include.
    included: Cut,
    /// Output batches that were read, by edge: a gap-free prefix.
    pub(super) outputs: BTreeMap<Edge, u64>,
    /// Window rows published.
    pub(super) rows: u64,
    /// The paths of roll-ups, and the texts by which windows group.
    paths: Texts,
    /// The sums of the windows as they were published last, by span of a roll-up.
    spans: BTreeMap<WindowKey, BTreeMap<u32, u64>>,
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
    pub(super) fn read(&mut self, now: Duration, briefs: Vec<Brief>, drop_late: bool) {
        for brief in briefs {
            let Brief { edge, number, low_watermark_ms, last, received, dead, windows } = brief;
            let source = self.sources.entry(edge).or_insert_with(|| Source::new(now));
            if source.read != number {
                continue;
            }
            source.read += 1;
            source.watermark_ms = source.watermark_ms.max(Some(low_watermark_ms));
            source.ended = last;
            source.received += received;
            source.dead += dead;
            source.heard_at = now;
            for count in windows {
                let window = self.windows.entry(count.key).or_default();
                window.batches.entry(edge).or_default().insert(number);
                window.valid += u64::from(count.events);
                if window.is_dirty() && !(drop_late && window.published.is_some()) {
                    self.dirty.insert(count.key);
                }
            }
            if dead > 0 && !self.included.has(edge, number) {
                self.dead.insert((edge, number), dead);
            }
        }
    }

    /// Takes what was published in.
    pub(super) fn published(&mut self, plan: &StreamPlan, batch: &PublishedBatch) {
        let read = self.outputs.entry(batch.edge).or_default();
        if *read != batch.number {
            return;
        }
        *read += 1;
        self.rows += batch.windows.len() as u64;
        for published in &batch.windows {
            let window = self.windows.entry(published.key).or_default();
            let before = window.published.as_ref();
            if before.is_none_or(|before| batch.cut.contains(&before.cut)) {
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
                    cut: batch.cut.clone(),
                    counted: published.counted,
                    duplicates: published.duplicates,
                    conflicts: published.conflicts,
                    paths,
                };
                for span in plan.spans_of(published.key) {
                    let sums = self.spans.entry(span).or_default();
                    now.paths.iter().for_each(|(path, n)| *sums.entry(*path).or_default() += n);
                    for (path, n) in before.iter().flat_map(|before| &before.paths) {
                        *sums.entry(*path).or_default() -= n;
                    }
                }
                window.published = Some(now);
            }
            if !window.is_dirty() {
                self.dirty.remove(&published.key);
            }
        }
        self.included.join(&batch.cut);
        let included = &self.included;
        self.dead.retain(|(edge, number), _| !included.has(*edge, *number));
    }

    /// How many batches of a publisher or of an output were read.
    pub(super) fn read_of(&self, edge: Edge) -> u64 {
        let of_output = self.outputs.get(&edge).copied();
        of_output.or_else(|| Some(self.sources.get(&edge)?.read)).unwrap_or_default()
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

    /// Begins to wait for publishers of which nothing was read yet.
    pub(super) fn expect(&mut self, now: Duration, publishers: impl Iterator<Item = Edge>) {
        for edge in publishers {
            self.sources.entry(edge).or_insert_with(|| Source::new(now));
        }
    }

    /// The batches that were read.
    pub(super) fn cut(&self) -> Cut {
        self.sources.iter().map(|(edge, source)| (*edge, source.read)).collect()
    }

    /// What can be published now, if anything.
    pub(super) fn next_round(&self, plan: &StreamPlan, watermark_ms: Option<i64>) -> Option<Round> {
        let mut events = 0;
        let closed = self
            .dirty
            .iter()
            .filter(|key| watermark_ms.is_some_and(|watermark| plan.closes(**key, watermark)));
        let keys: Vec<_> = closed
            .take(WINDOWS_PER_ROUND)
            .take_while(|key| {
                let room = events == 0 || events < EVENTS_PER_ROUND;
                events += self.windows[*key].valid;
                room
            })
            .copied()
            .collect();
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
            wanted: Wanted { windows: windows.collect() },
            fresh: fresh.into_iter().collect(),
            known: Known {
                spans: self.spans(plan, &keys),
                recent: self.recent(plan, &keys),
                first: self.first(plan, &keys),
            },
        })
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
        let mut spans: BTreeMap<WindowKey, (BTreeMap<u32, u64>, BTreeSet<u32>)> = BTreeMap::new();
        for key in keys {
            let own = self.windows[key].published.iter().flat_map(|before| &before.paths);
            let own: Vec<_> = own.collect();
            for span in plan.spans_of(*key) {
                let sums = || self.spans.get(&span).cloned().unwrap_or_default();
                let (sums, before) = spans.entry(span).or_insert_with(|| (sums(), BTreeSet::new()));
                for (path, count) in &own {
                    *sums.entry(*path).or_default() -= count;
                    before.insert(*path);
                }
            }
        }
        let text = |path: u32| self.paths.value(path).to_owned();
        let span = |(key, (sums, before)): (WindowKey, (BTreeMap<u32, u64>, BTreeSet<u32>))| Span {
            key,
            others: sums.into_iter().map(|(path, count)| (text(path), count)).collect(),
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
        let mut counts = EventCounts::default();
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
        (self.windows.len() as u64 - published, published)
    }
}

impl Source {
    fn new(now: Duration) -> Self {
        Self { read: 0, watermark_ms: None, ended: false, received: 0, dead: 0, heard_at: now }
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

#[cfg(test)]
mod tests {
    use cortado_stream::{PublishedWindow, WindowCount};

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plan() -> StreamPlan {
        StreamPlan::parse(cortado_stream::EVENTS).unwrap()
    }

    fn publisher(name: &str, backfill: bool) -> Publisher {
        Publisher { name: name.into(), generation: 0, opened_ms: 0, backfill }
    }

    fn log(publishers: &[Publisher]) -> StreamLog {
        let publishers = publishers.iter().map(|p| (p.edge(), p.clone())).collect();
        StreamLog { publishers, ..StreamLog::default() }
    }

    /// A batch with 10 events in the window that starts at `start_ms`.
    fn brief(of: &Publisher, number: u64, start_ms: i64, low_watermark_ms: i64) -> Brief {
        let windows = vec![WindowCount { key: (0, start_ms), events: 10 }];
        let (edge, last) = (of.edge(), false);
        Brief { edge, number, low_watermark_ms, last, received: 10, dead: 0, windows }
    }

    fn publish(state: &mut State, batch: u64, round: &Round) {
        let windows = round.wanted.windows.iter().map(|window| PublishedWindow {
            key: window.key,
            counted: window.valid,
            duplicates: 0,
            conflicts: 0,
            paths: Vec::new(),
            groups: vec![(vec!["norte".to_owned()], window.valid)],
            alerts: Vec::new(),
        });
        let (edge, cut) = (Edge::output("n".parse().unwrap(), 1), round.cut.clone());
        let windows = windows.collect();
        state.published(&plan(), &PublishedBatch { edge, number: batch, cut, windows });
    }

    #[test]
    fn a_window_waits_for_the_slowest_publisher_that_is_not_silent() {
        let (a, b) = (publisher("a", false), publisher("b", false));
        let (log, plan) = (log(&[a.clone(), b.clone()]), plan());
        let mut state = State::default();
        state.expect(seconds(0), log.publishers.keys().copied());
        state.read(seconds(1), vec![brief(&a, 0, 0, 60_000)], false);
        assert_eq!(state.watermark(&log, &plan, seconds(1)), None, "b has sent nothing");
        state.read(seconds(2), vec![brief(&b, 0, 0, 6_000)], false);
        assert_eq!(state.watermark(&log, &plan, seconds(2)), Some(6_000));
        state.read(seconds(3), vec![brief(&b, 1, 0, 3_000)], false);
        assert_eq!(state.watermark(&log, &plan, seconds(3)), Some(6_000), "it never goes back");
        state.read(seconds(9), vec![brief(&a, 1, 60_000, 60_000)], false);
        assert_eq!(state.watermark(&log, &plan, seconds(13)), Some(60_000), "b is silent");
        assert_eq!(state.watermark(&log, &plan, seconds(19)), Some(i64::MAX), "all are silent");
    }

    #[test]
    fn who_imports_old_data_or_has_ended_holds_nobody_back() {
        let (a, b) = (publisher("a", false), publisher("b", true));
        let (log, plan) = (log(&[a.clone(), b.clone()]), plan());
        let mut state = State::default();
        state.expect(seconds(0), log.publishers.keys().copied());
        state.read(seconds(1), vec![brief(&a, 0, 0, 60_000), brief(&b, 0, 0, -60_000)], false);
        assert_eq!(state.watermark(&log, &plan, seconds(1)), Some(60_000));
        assert!(!state.have_ended(&log));
        state.read(seconds(1), vec![Brief { last: true, ..brief(&a, 1, 0, 60_000) }], false);
        assert_eq!(state.watermark(&log, &plan, seconds(1)), Some(i64::MAX));
        state.read(seconds(1), vec![Brief { last: true, ..brief(&b, 1, 0, 60_000) }], false);
        assert!(state.have_ended(&log));
    }

    #[test]
    fn a_late_batch_makes_its_window_dirty_again_and_no_other() {
        let (a, plan) = (publisher("a", false), plan());
        let mut state = State::default();
        state.read(seconds(1), vec![brief(&a, 0, 0, 60_000), brief(&a, 1, 5_000, 60_000)], false);
        let round = state.next_round(&plan, Some(7_000)).unwrap();
        assert_eq!(round.wanted.windows.len(), 1, "the second one ends at 10 s");
        publish(&mut state, 0, &round);
        assert!(state.next_round(&plan, Some(7_000)).is_none());
        let round = state.next_round(&plan, Some(i64::MAX)).unwrap();
        assert_eq!(round.wanted.windows[0].key, (0, 5_000));
        publish(&mut state, 1, &round);
        assert!(state.is_settled());
        state.read(seconds(2), vec![brief(&a, 2, 0, 60_000)], false);
        let late = state.next_round(&plan, Some(60_000)).unwrap();
        assert_eq!((late.wanted.windows[0].key, late.wanted.windows[0].valid), ((0, 0), 20));
        assert_eq!(late.wanted.windows[0].before, Some([(a.edge(), 2)].into_iter().collect()));
        assert!(late.cut.batches() > round.cut.batches());
        let counts = state.counts();
        assert_eq!((counts.received, counts.counted, counts.open), (30, 20, 10));
    }

    #[test]
    fn what_another_coordinator_published_is_not_published_again() {
        let (a, plan) = (publisher("a", false), plan());
        let mut first = State::default();
        first.read(seconds(1), vec![brief(&a, 0, 0, 60_000)], false);
        let round = first.next_round(&plan, Some(60_000)).unwrap();
        let mut second = State::default();
        publish(&mut second, 0, &round);
        assert!(!second.has_caught_up());
        second.read(seconds(1), vec![brief(&a, 0, 0, 60_000)], false);
        assert!(
            second.has_caught_up()
                && second.is_settled()
                && second.next_round(&plan, Some(60_000)).is_none()
        );
        second.read(
            seconds(1),
            vec![Brief { dead: 3, windows: vec![], ..brief(&a, 1, 0, 0) }],
            false,
        );
        let round = second.next_round(&plan, None).unwrap();
        assert!(round.wanted.windows.is_empty());
        assert_eq!(round.fresh, [(a.edge(), Coverage::range(1, 2))]);
        publish(&mut second, 1, &round);
        assert!(second.is_settled());
    }
}
