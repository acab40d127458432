use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;

fn node(number: u32) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

fn schedule(nodes: u32) -> Schedule {
    let mut schedule = Schedule::new(JobId(7));
    schedule.set_members((1..=nodes).map(node).collect());
    (1..=nodes).for_each(|n| schedule.node_up(node(n)));
    schedule
}

/// Sends all batches that can be sent.
fn drain(schedule: &mut Schedule, now: Instant) -> Vec<(Key, NodeId)> {
    std::iter::from_fn(|| schedule.next(now)).collect()
}

/// Like [`schedule`], with twelve batches in flight.
fn busy(nodes: u32, now: Instant) -> (Schedule, Vec<(Key, NodeId)>) {
    let mut schedule = schedule(nodes);
    (0..12).for_each(|number| schedule.add((0, number), MIB));
    let sent = drain(&mut schedule, now);
    (schedule, sent)
}

#[test]
fn a_batch_goes_to_the_first_owner_and_back_to_the_second() {
    let now = Instant::now();
    let mut schedule = schedule(5);
    let order = owners(batch_key(JobId(7), 1, 4), &schedule.members);
    schedule.add((1, 4), MIB);
    assert_eq!(schedule.next(now), Some(((1, 4), order[0])));
    schedule.retry(now, order[0], (1, 4));
    assert_eq!(schedule.next(now), None, "a pause first");
    let later = schedule.wake_at(now).unwrap();
    assert!(later > now);
    assert_eq!(schedule.next(later), Some(((1, 4), order[1])));
    schedule.node_down(order[1]);
    let (key, at) = schedule.next(later).expect("at once after a loss");
    assert_eq!(key, (1, 4));
    assert!(schedule.durable(later, at, key).is_some());
    assert_eq!(schedule.durable(later, at, key), None);
    assert!(schedule.is_idle() && schedule.has_room());
}

#[test]
fn windows_and_the_budget_bound_what_is_under_way() {
    let now = Instant::now();
    let mut schedule = schedule(2);
    let mut added = 0;
    while schedule.has_room() {
        schedule.add((0, added), MIB);
        added += 1;
    }
    assert_eq!(added as usize, BUDGET_BYTES / MIB);
    let sent = drain(&mut schedule, now);
    assert_eq!(sent.len(), 2 * WINDOW);
    for number in [1, 2] {
        assert_eq!(sent.iter().filter(|(_, at)| *at == node(number)).count(), WINDOW);
    }
    assert!(schedule.durable(now, sent[0].1, sent[0].0).is_some());
    assert_eq!(drain(&mut schedule, now).len(), 1);
}

#[test]
fn late_answers_of_a_lost_node_count_if_good_and_are_ignored_if_not() {
    let mut now = Instant::now();
    let mut schedule = schedule(2);
    schedule.add((0, 0), MIB);
    let (key, first) = schedule.next(now).unwrap();
    schedule.node_down(first);
    let (_, second) = schedule.next(now).unwrap();
    assert_ne!(first, second);
    schedule.retry(now, first, key);
    assert_eq!(schedule.wake_at(now), None, "the batch is still under way at the other node");
    now += Duration::from_millis(7);
    assert_eq!(schedule.durable(now, first, key), Some(Duration::from_millis(7)));
    assert!(schedule.is_idle());
}

#[test]
fn what_a_slow_node_has_goes_to_another_one_too_and_is_done_once() {
    let mut now = Instant::now();
    let (mut schedule, sent) = busy(3, now);
    let slow = sent[0].1;
    let (at_slow, elsewhere): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, at)| *at == slow);
    assert!(!at_slow.is_empty() && !elsewhere.is_empty());
    now += Duration::from_millis(100);
    let usual = Duration::from_millis(100);
    elsewhere.iter().for_each(|(key, at)| {
        assert_eq!(schedule.durable(now, *at, *key), Some(usual));
    });
    assert_eq!(schedule.next(now), None, "not longer than is usual");
    let late = schedule.wake_at(now).unwrap();
    assert_eq!(late - now, SLOW_TIMES * Duration::from_millis(100) - Duration::from_millis(100));
    let again = drain(&mut schedule, late);
    assert_eq!(again.iter().map(|sent| sent.0).collect::<Vec<_>>(), {
        let mut keys: Vec<_> = at_slow.iter().map(|sent| sent.0).collect();
        keys.sort_unstable();
        keys
    });
    assert!(again.iter().all(|(_, at)| *at != slow));
    assert_eq!(schedule.wake_at(late), None, "no third time");
    // The second node answers first; the answer of the first one is late and changes nothing.
    let now = late + Duration::from_millis(1);
    let (key, at) = again[0];
    let took = SLOW_TIMES * usual + Duration::from_millis(1);
    assert_eq!(schedule.durable(now, at, key), Some(took));
    assert_eq!(schedule.durable(now, slow, key), None);
    again[1..].iter().for_each(|(key, at)| {
        assert!(schedule.durable(now, *at, *key).is_some());
        assert!(schedule.durable(now, slow, *key).is_none());
    });
    assert!(schedule.is_idle() && schedule.bytes == 0);
    // From now on the slow node gets one batch now and then.
    let own = (0..).map(|number| (1, number));
    let own =
        own.filter(|(t, n)| owners(batch_key(JobId(7), *t, *n), &schedule.members)[0] == slow);
    let own: Vec<_> = own.take(2).collect();
    own.iter().for_each(|key| schedule.add(*key, MIB));
    let elsewhere = drain(&mut schedule, now);
    assert!(elsewhere.iter().all(|(_, at)| *at != slow));
    elsewhere.iter().for_each(|(key, at)| assert!(schedule.durable(now, *at, *key).is_some()));
    own.iter().for_each(|key| schedule.add(*key, MIB));
    let to_slow = drain(&mut schedule, now + (REST_TIMES + 1) * took);
    assert_eq!(to_slow.iter().filter(|(_, at)| *at == slow).count(), 1, "{to_slow:?}");
}

#[test]
fn what_a_lost_slow_node_had_is_not_sent_a_third_time() {
    let mut now = Instant::now();
    let (mut schedule, sent) = busy(2, now);
    let (lost, other) = (node(1), node(2));
    now += SLOW_AFTER;
    for (key, _) in sent.iter().filter(|(_, at)| *at == other) {
        assert!(schedule.durable(now, other, *key).is_some());
    }
    let again = drain(&mut schedule, now + SLOW_TIMES * SLOW_AFTER);
    assert!(!again.is_empty() && again.iter().all(|(_, at)| *at == other));
    schedule.node_down(lost);
    assert_eq!(schedule.next(now + SLOW_TIMES * SLOW_AFTER), None);
    again.iter().for_each(|(key, at)| assert!(schedule.durable(now, *at, *key).is_some()));
    assert!(schedule.is_idle());
}

#[test]
fn without_a_node_everything_waits() {
    let now = Instant::now();
    let mut schedule = schedule(1);
    schedule.node_down(node(1));
    schedule.add((0, 0), MIB);
    assert_eq!(schedule.next(now), None);
    schedule.node_up(node(1));
    assert!(schedule.next(now).is_some());
}

proptest! {
    /// Whatever happens, each batch is done once, and no window overflows.
    #[test]
    fn every_batch_is_done_once(
        batches in 1u64..60,
        fates in prop::collection::vec((0u8..5, 1u32..5), 0..400),
    ) {
        let mut now = Instant::now();
        let mut schedule = schedule(4);
        (0..batches).for_each(|number| schedule.add((0, number), 1));
        let mut done = std::collections::BTreeSet::new();
        for (fate, number) in fates {
            let sent = drain(&mut schedule, now);
            prop_assert!(schedule.nodes.values().all(|node| node.owes.len() <= WINDOW));
            let flying = schedule.flying.iter().map(|(k, f)| (*k, f.second.unwrap_or(f.first)));
            let flying = flying.min();
            match (fate, flying) {
                (0, _) => schedule.node_down(node(number)),
                (1, _) => schedule.node_up(node(number)),
                (2, Some((key, at))) => schedule.retry(now, at, key),
                (3, _) => now += Duration::from_millis(100),
                (_, Some((key, at))) => {
                    prop_assert!(schedule.durable(now, at, key).is_some() && done.insert(key));
                }
                _ => prop_assert!(sent.is_empty()),
            }
        }
        (1..=4).for_each(|number| schedule.node_up(node(number)));
        // A slow node may not have answered yet for a batch that is done.
        let mut idle = false;
        while !idle {
            idle = schedule.is_idle();
            now += LONGEST_PAUSE;
            drain(&mut schedule, now);
            let nodes = schedule.nodes.iter();
            let owed: Vec<_> = nodes
                .flat_map(|(node, state)| state.owes.keys().map(|key| (*node, *key)))
                .collect();
            for (node, key) in owed {
                prop_assert_eq!(schedule.durable(now, node, key).is_some(), done.insert(key));
            }
        }
        prop_assert_eq!(done.len() as u64, batches);
        prop_assert!(schedule.nodes.values().all(|node| node.owes.is_empty()));
        prop_assert_eq!(schedule.bytes, 0);
    }
}
