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

/// Sends all that can be sent.
fn drain(schedule: &mut Schedule, now: Instant) -> Vec<(Key, NodeId)> {
    std::iter::from_fn(|| schedule.next(now)).collect()
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
    assert_eq!(schedule.next(later).map(|sent| sent.0), Some((1, 4)), "at once after a loss");
    assert!(schedule.durable((1, 4)) && !schedule.durable((1, 4)));
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
    assert!(schedule.durable(sent[0].0));
    assert_eq!(drain(&mut schedule, now).len(), 1);
}

#[test]
fn late_answers_of_a_lost_node_count_if_good_and_are_ignored_if_not() {
    let now = Instant::now();
    let mut schedule = schedule(2);
    schedule.add((0, 0), MIB);
    let (key, first) = schedule.next(now).unwrap();
    schedule.node_down(first);
    let (_, second) = schedule.next(now).unwrap();
    assert_ne!(first, second);
    schedule.retry(now, first, key);
    assert_eq!(schedule.wake_at(now), None, "the batch is still under way at the other node");
    assert!(schedule.durable(key));
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
    /// Whatever happens on the way, each batch is done once, and no window overflows.
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
            prop_assert!(schedule.nodes.values().all(|in_flight| *in_flight <= WINDOW));
            let flying = schedule.flying.iter().map(|(k, f)| (*k, f.node)).min();
            match (fate, flying) {
                (0, _) => schedule.node_down(node(number)),
                (1, _) => schedule.node_up(node(number)),
                (2, Some((key, at))) => schedule.retry(now, at, key),
                (3, _) => now += Duration::from_millis(100),
                (_, Some((key, _))) => prop_assert!(schedule.durable(key) && done.insert(key)),
                _ => prop_assert!(sent.is_empty()),
            }
        }
        (1..=4).for_each(|number| schedule.node_up(node(number)));
        while !schedule.is_idle() {
            now += LONGEST_PAUSE;
            drain(&mut schedule, now);
            let keys: Vec<_> = schedule.flying.keys().copied().collect();
            for key in keys {
                prop_assert!(schedule.durable(key) && done.insert(key));
            }
        }
        prop_assert_eq!(done.len() as u64, batches);
        prop_assert!(schedule.nodes.values().all(|in_flight| *in_flight == 0));
        prop_assert_eq!(schedule.bytes, 0);
    }
}
