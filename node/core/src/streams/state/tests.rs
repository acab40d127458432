use cortado_stream::{GoneSpan, IdSpan, OutputBatch, PublishedWindow, Touch, WindowCount};

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
    Brief {
        edge,
        number,
        low_watermark_ms,
        sent_at_ms: 60_000,
        last,
        received: 10,
        dead: 0,
        windows,
    }
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
    let outputs = round.known.outputs.clone();
    let made = OutputBatch { windows, outputs, ..OutputBatch::new(cut, round.known.until_ms) };
    let batch = PublishedBatch::new((edge, batch), made);
    state.published(seconds(0), &plan(), &batch);
}

#[test]
fn a_window_waits_for_the_slowest_publisher_that_is_not_silent() {
    let (a, b) = (publisher("a", false), publisher("b", false));
    let (log, plan) = (log(&[a.clone(), b.clone()]), plan());
    let mut state = State::default();
    state.expect(seconds(0), &log);
    state.read((seconds(1), false), &plan, vec![brief(&a, 0, 0, 60_000)], None);
    assert_eq!(state.watermark(&log, &plan, seconds(1)), None, "b has sent nothing");
    state.read((seconds(2), false), &plan, vec![brief(&b, 0, 0, 6_000)], None);
    assert_eq!(state.watermark(&log, &plan, seconds(2)), Some(6_000));
    state.read((seconds(3), false), &plan, vec![brief(&b, 1, 0, 3_000)], None);
    assert_eq!(state.watermark(&log, &plan, seconds(3)), Some(6_000), "it never goes back");
    state.read((seconds(9), false), &plan, vec![brief(&a, 1, 60_000, 60_000)], None);
    assert_eq!(state.watermark(&log, &plan, seconds(13)), Some(60_000), "b is silent");
    assert_eq!(state.watermark(&log, &plan, seconds(19)), Some(i64::MAX), "all are silent");
}

#[test]
fn who_imports_old_data_or_has_ended_holds_nobody_back() {
    let (a, b) = (publisher("a", false), publisher("b", true));
    let (log, plan) = (log(&[a.clone(), b.clone()]), plan());
    let mut state = State::default();
    state.expect(seconds(0), &log);
    state.read(
        (seconds(1), false),
        &plan,
        vec![brief(&a, 0, 0, 60_000), brief(&b, 0, 0, -60_000)],
        None,
    );
    assert_eq!(state.watermark(&log, &plan, seconds(1)), Some(60_000));
    assert!(!state.have_ended(&log));
    state.read(
        (seconds(1), false),
        &plan,
        vec![Brief { last: true, ..brief(&a, 1, 0, 60_000) }],
        None,
    );
    assert_eq!(state.watermark(&log, &plan, seconds(1)), Some(i64::MAX));
    state.read(
        (seconds(1), false),
        &plan,
        vec![Brief { last: true, ..brief(&b, 1, 0, 60_000) }],
        None,
    );
    assert!(state.have_ended(&log));
}

#[test]
fn a_late_batch_makes_its_window_dirty_again_and_no_other() {
    let (a, plan) = (publisher("a", false), plan());
    let mut state = State::default();
    state.read(
        (seconds(1), false),
        &plan,
        vec![brief(&a, 0, 0, 60_000), brief(&a, 1, 5_000, 60_000)],
        None,
    );
    let round = state.next_round(&plan, Some(7_000), None).unwrap();
    assert_eq!(round.wanted.windows.len(), 1, "the second one ends at 10 s");
    publish(&mut state, 0, &round);
    assert!(state.next_round(&plan, Some(7_000), None).is_none());
    let round = state.next_round(&plan, Some(i64::MAX), None).unwrap();
    assert_eq!(round.wanted.windows[0].key, (0, 5_000));
    publish(&mut state, 1, &round);
    assert!(state.is_settled());
    state.read((seconds(2), false), &plan, vec![brief(&a, 2, 0, 60_000)], None);
    let late = state.next_round(&plan, Some(60_000), None).unwrap();
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
    first.read((seconds(1), false), &plan, vec![brief(&a, 0, 0, 60_000)], None);
    let round = first.next_round(&plan, Some(60_000), None).unwrap();
    let mut second = State::default();
    publish(&mut second, 0, &round);
    assert!(!second.has_caught_up());
    second.read((seconds(1), false), &plan, vec![brief(&a, 0, 0, 60_000)], None);
    assert!(
        second.has_caught_up()
            && second.is_settled()
            && second.next_round(&plan, Some(60_000), None).is_none()
    );
    second.read(
        (seconds(1), false),
        &plan,
        vec![Brief { dead: 3, windows: vec![], ..brief(&a, 1, 0, 0) }],
        None,
    );
    let round = second.next_round(&plan, None, None).unwrap();
    assert!(round.wanted.windows.is_empty());
    assert_eq!(round.fresh, [(a.edge(), Coverage::range(1, 2))]);
    publish(&mut second, 1, &round);
    assert!(second.is_settled());
}

/// A plan that keeps events for 8 s.
fn short_plan() -> StreamPlan {
    let text = "name = 'x'\n[stream]\nid = 'id'\ntime = 'at'\nretention = '8s'\n\
                horizon = '2s'\n\
                [[windows]]\noutput = 'rows'\nevery = '1s'\ngroup_by = ['key']\n\
                [[rollups]]\noutput = 'long'\nevery = '1h'\nper = ['key']\nby = 'key'\n";
    StreamPlan::parse(text).unwrap()
}

#[test]
fn who_begins_with_a_checkpoint_knows_what_others_know_who_read_everything() {
    let (a, plan) = (publisher("a", false), short_plan());
    let log = log(std::slice::from_ref(&a));
    let edge = Edge::output("n".parse().unwrap(), 1);
    let mut state = State::default();
    let (mut briefs, mut outputs) = (Vec::new(), Vec::new());
    let round = |state: &mut State, outputs: &mut Vec<PublishedBatch>, plan: &StreamPlan| {
        let round = state.next_round(plan, state.watermark(&log, plan, seconds(1)), None);
        let round = round.unwrap();
        let windows = round.wanted.windows.iter().map(|window| PublishedWindow {
            key: window.key,
            counted: window.valid,
            duplicates: 0,
            conflicts: 0,
            paths: vec![("0|norte".to_owned(), window.valid)],
            groups: Vec::new(),
            alerts: Vec::new(),
        });
        let (cut, windows) = (round.cut.clone(), windows.collect());
        let (number, until_ms) = (outputs.len() as u64, round.known.until_ms);
        let batch = OutputBatch { windows, ..OutputBatch::new(cut, until_ms) };
        let batch = PublishedBatch::new((edge, number), batch);
        state.published(seconds(1), plan, &batch);
        outputs.push(batch);
    };
    for number in 0..20 {
        let start_ms = number as i64 * 1_000;
        briefs.push(brief(&a, number, start_ms, start_ms));
        state.read((seconds(1), false), &plan, briefs[number as usize..].to_vec(), None);
        if number > 0 {
            round(&mut state, &mut outputs, &plan);
        }
    }
    // A late one, of a window that will be retired before it is published.
    briefs.push(Brief { dead: 1, ..brief(&a, 20, 3_000, 19_000) });
    state.read((seconds(1), false), &plan, briefs[20..].to_vec(), None);
    let before_ms = state.retires_before(&log, &plan, seconds(1)).unwrap();
    assert_eq!(before_ms, 11_000);
    assert!(state.has_older(&plan, before_ms) && !state.has_older(&plan, 500));
    let frozen = state.next_round(&plan, Some(19_000), Some(before_ms)).unwrap();
    assert!(frozen.wanted.windows.is_empty(), "only a dead letter can be published");
    let left = state.checkpoint(&plan, before_ms);
    assert_eq!((left.windows, left.counted, left.late), (11, 110, 10));
    let paths = vec![("0|norte".to_owned(), 110)];
    assert_eq!(left.spans, [GoneSpan { key: (0, 0), windows: 11, paths }]);
    let gone = &left.sources[0];
    assert_eq!((gone.floor, gone.received, gone.dead, gone.ended), (8, 80, 0, false));
    let number = outputs.len() as u64;
    let mut batch = OutputBatch::new(left.cut.clone(), state.until_ms());
    batch.retired = Some(Box::new(left.clone()));
    let batch = PublishedBatch::new((edge, number), batch);
    state.published(seconds(1), &plan, &batch);
    outputs.push(batch);

    // Another coordinator begins with the checkpoint, and reads what is kept.
    let mut other = State::default();
    other.published(seconds(1), &plan, &outputs[number as usize]);
    let floor = left.outputs[0].floor as usize;
    assert!(floor > 0 && floor < outputs.len());
    outputs[floor..].iter().for_each(|batch| other.published(seconds(1), &plan, batch));
    assert!(!other.has_caught_up());
    // Batches of retired windows, because they decide what counts in others.
    other.read((seconds(1), false), &plan, briefs[8..].to_vec(), None);
    assert!(other.has_caught_up());
    for state in [&mut state, &mut other] {
        let counts = state.counts();
        assert_eq!((counts.received, counts.counted, counts.open), (210, 190, 10));
        assert_eq!((counts.dead, counts.retired), (1, 10));
        assert_eq!((state.window_counts(), state.rows), ((1, 19), 19));
        let sum = &state.spans[&(0, 0)];
        assert_eq!((sum.windows, sum.paths.values().sum::<u64>()), (19, 190));
        let near = state.near(&plan, &[(0, 11_000)]);
        let near = near.iter().map(|span| (span.start_ms, span.batches[0].1.intervals()[0].0));
        let expected = (9..14).map(|number| (number * 1_000, number as u64));
        assert!(near.eq(expected));
        // What comes now for a retired window is late, and counted as such.
        state.read((seconds(1), false), &plan, vec![brief(&a, 21, 4_000, 19_000)], None);
        assert_eq!(state.counts().retired, 20);
        assert!(state.next_round(&plan, Some(19_000), Some(before_ms)).is_none());
    }
}

#[test]
fn a_window_that_is_touched_is_published_again_before_what_touches_it() {
    let (a, plan) = (publisher("a", false), plan());
    let mut state = State::default();
    let briefs = [0, 5_000, 10_000].into_iter().zip(0..);
    let briefs = briefs.map(|(start_ms, number)| brief(&a, number, start_ms, 60_000));
    state.read((seconds(1), false), &plan, briefs.collect(), None);
    let round = state.next_round(&plan, Some(60_000), None).unwrap();
    publish(&mut state, 0, &round);
    state.read((seconds(2), false), &plan, vec![brief(&a, 3, 0, 60_000)], None);
    let late = state.next_round(&plan, Some(60_000), None).unwrap();
    let keys = |round: &Round| round.wanted.windows.iter().map(|w| w.key.1).collect::<Vec<_>>();
    assert_eq!(keys(&late), [0]);
    let near: Coverage = (0..4).collect();
    assert_eq!(late.wanted.near, [IdSpan { start_ms: 0, batches: vec![(a.edge(), near)] }]);
    let touch = |window, later, batches| {
        let batches = [(a.edge(), batches)].into_iter().collect();
        Touch { window: (0, window), later: (0, later), batches }
    };
    let known = state.touch(&[(0, 0)], &[touch(0, 5_000, 3), touch(0, 15_000, 4)]);
    assert!(known.is_empty(), "one includes it, the other was never published");
    // The first one touches the second, and that one the third, which is not in the round.
    let touches = [touch(0, 5_000, 4), touch(5_000, 10_000, 4)];
    let waiting = state.touch(&[(0, 0), (0, 5_000)], &touches);
    assert_eq!(waiting, [(0, 0), (0, 5_000)].into_iter().collect());
    // Windows that were published are closed, whatever the watermark.
    let round = state.next_round(&plan, Some(6_000), None).unwrap();
    assert_eq!(keys(&round), [10_000]);
    let round = state.next_round(&plan, Some(60_000), None).unwrap();
    assert_eq!(keys(&round), [0, 10_000]);
    publish(&mut state, 1, &round);
    assert!(state.is_settled() && state.touched.is_empty());
    assert!(state.touch(&[(0, 0), (0, 5_000)], &touches[1..]).is_empty());
}

#[test]
fn what_two_coordinators_published_without_knowing_of_each_other_is_published_again() {
    let (a, b, plan) = (publisher("a", false), publisher("b", false), plan());
    let node = |name: &str| Edge::output(name.parse().unwrap(), 1);
    let window = |start_ms| PublishedWindow {
        key: (0, start_ms),
        counted: 10,
        duplicates: 0,
        conflicts: 0,
        paths: Vec::new(),
        groups: Vec::new(),
        alerts: Vec::new(),
    };
    for (has_read, order) in [(false, [0, 1]), (false, [1, 0]), (true, [0, 1])] {
        let mut state = State::default();
        let briefs = vec![brief(&a, 0, 0, 60_000), brief(&b, 0, 5_000, 60_000)];
        state.read((seconds(1), false), &plan, briefs, None);
        let batch = |of: &Publisher, start_ms| {
            let cut = [(of.edge(), 1)].into_iter().collect();
            OutputBatch { windows: vec![window(start_ms)], ..OutputBatch::new(cut, 60_000) }
        };
        let mut first = batch(&a, 0);
        first.outputs.extend(has_read.then_some((node("n"), 1)));
        let batches = [(node("m"), first), (node("n"), batch(&b, 5_000))];
        for at in order {
            let (edge, batch) = batches[at].clone();
            let batch = PublishedBatch::new((edge, 0), batch);
            state.published(seconds(1), &plan, &batch);
        }
        let round = state.next_round(&plan, Some(60_000), None);
        assert_eq!(round.is_none(), has_read, "{order:?}");
        let Some(round) = round else { continue };
        assert_eq!(round.wanted.windows[0].key, (0, 5_000), "the later one");
        publish(&mut state, 1, &round);
        assert!(state.is_settled());
    }
}

#[test]
fn a_sealed_publisher_has_ended_once_what_counts_of_it_was_read() {
    let (a, plan) = (publisher("a", false), short_plan());
    let mut log = log(std::slice::from_ref(&a));
    let mut state = State::default();
    state.expect(seconds(0), &log);
    let briefs = [0, 3, 5].map(|number| brief(&a, number, 0, number as i64 * 1_000)).to_vec();
    state.read((seconds(1), false), &plan, briefs.clone(), Some(&log.seals));
    assert_eq!((state.read_of(a.edge()), state.have_ended(&log)), (1, false), "1 is missing");
    let void = Coverage::range(1, 3);
    log.seals.insert(a.edge(), Seal { end: 4, void });
    state.expect(seconds(2), &log);
    assert!(!state.have_ended(&log), "3 counts, and was not read");
    state.read((seconds(2), false), &plan, briefs[1..2].to_vec(), Some(&log.seals));
    state.expect(seconds(2), &log);
    assert!(state.have_ended(&log));
    assert_eq!((state.read_of(a.edge()), state.counts().received), (4, 20));
    assert_eq!(state.cut().of(a.edge()), 4);
}

#[test]
fn the_newest_rows_begin_where_the_newest_windows_were_published_last() {
    let a = publisher("a", false);
    let (log, plan) = (log(std::slice::from_ref(&a)), plan());
    let mut state = State::default();
    state.expect(seconds(0), &log);
    let edge = Edge::output("n".parse().unwrap(), 1);
    for (number, start_ms) in [(0, 0), (1, 5_000), (2, 10_000), (3, 0)] {
        let briefs = vec![brief(&a, number, start_ms, 60_000)];
        state.read((seconds(1), false), &plan, briefs, None);
        let round = state.next_round(&plan, Some(60_000), None).unwrap();
        publish(&mut state, number, &round);
    }
    let begin = |windows| state.latest(windows).of(edge);
    // The oldest window was published once more, last of all.
    assert_eq!(begin(0), (4, 0));
    assert_eq!(begin(1), (2, 0));
    assert_eq!(begin(2), (1, 0));
    assert_eq!(begin(3), (1, 0));
}
