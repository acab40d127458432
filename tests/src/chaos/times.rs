//! How long a killed node was missed, according to the events of the other nodes.

use std::collections::BTreeSet;

use serde_json::Value;

/// The times after a kill, in milliseconds. A node that is started again before another one has
/// missed it is never marked as down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Until the last node that missed it had marked it as down.
    pub known: Option<u64>,
    /// Until no node relied on the dead process any more: the time above, or the new start.
    pub served: Option<u64>,
    /// Until it was started again, and all nodes that had missed it saw it alive.
    pub back: Option<u64>,
}

/// One recovery for each kill, from the lines of `cortado chaos run --json` and
/// `cortado log --json`.
pub(super) fn recoveries(acts: &[Value], events: &[Value]) -> Vec<Recovery> {
    let kills: Vec<(u64, &str)> = acts
        .iter()
        .filter(|act| act["fault"] == "kill" && act["note"].is_null())
        .filter_map(|act| Some((act["unix_ms"].as_u64()?, act["nodes"][0].as_str()?)))
        .collect();
    let next = |at: usize| kills[at + 1..].iter().find(|(_, node)| *node == kills[at].1);
    let until = |at: usize| next(at).map_or(u64::MAX, |(ms, _)| *ms);
    kills
        .iter()
        .enumerate()
        .map(|(at, (ms, node))| recovery(*ms, until(at), node, events))
        .collect()
}

/// The node that reported an event, and the time.
fn witness(event: &Value) -> Option<(&str, u64)> {
    Some((event["seen_by"].as_str()?, event["unix_ms"].as_u64()?))
}

fn recovery(killed: u64, until: u64, node: &str, events: &[Value]) -> Recovery {
    let times = |by: &dyn Fn(&Value) -> bool, name: &str, until: u64| -> Vec<(&str, u64)> {
        let events = events.iter().filter(|event| event["event"] == name && by(event));
        events.filter_map(witness).filter(|(_, at)| (killed..until).contains(at)).collect()
    };
    let itself = |event: &Value| event["seen_by"] == node;
    let others = |event: &Value| event["node"] == node && event["seen_by"] != node;
    let started = times(&itself, "started", until).into_iter().map(|(_, at)| at).min();
    // After the start, the node is missed for another reason.
    let missed = times(&others, "member_down", started.unwrap_or(until));
    let first = |witness: &str, times: &[(&str, u64)]| {
        times.iter().filter(|(by, _)| *by == witness).map(|(_, at)| *at).min()
    };
    let seen = times(&others, "member_alive", until);
    let witnesses: BTreeSet<_> = missed.iter().map(|(by, _)| *by).collect();
    let known = witnesses.iter().filter_map(|by| first(by, &missed)).max();
    let back = witnesses.iter().filter_map(|by| first(by, &seen)).chain(started).max();
    let since = |at: Option<u64>| at.map(|at| at - killed);
    Recovery { known: since(known), served: since(known.or(started)), back: since(back) }
}

/// Median and 99th percentile (nearest rank), in milliseconds; `None` for an empty list.
pub(crate) fn percentiles(mut times: Vec<u64>) -> Option<(u64, u64)> {
    times.sort_unstable();
    let rank =
        |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1).copied();
    Some((rank(50)?, rank(99)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(unix_ms: u64, by: &str, event: &str, node: &str) -> Value {
        json!({ "unix_ms": unix_ms, "seen_by": by, "event": event, "node": node })
    }

    #[test]
    fn each_kill_is_timed_by_its_last_witness() {
        let kill =
            |ms, node| json!({ "unix_ms": ms, "fault": "kill", "nodes": [node], "note": null });
        let missed =
            json!({ "unix_ms": 4, "fault": "kill", "nodes": ["c"], "note": "dead already" });
        let started =
            |ms, node: &str| json!({ "unix_ms": ms, "seen_by": node, "event": "started" });
        let events = [
            event(50, "b", "member_alive", "a"),
            event(1_000, "b", "member_down", "a"),
            event(1_200, "c", "member_down", "a"),
            started(1_400, "a"),
            event(1_500, "b", "member_alive", "a"),
            event(1_700, "c", "member_alive", "a"),
            event(1_800, "a", "member_alive", "a"),
            started(5_300, "a"),
            // These events do not belong to the kill.
            event(7_000, "b", "member_down", "a"),
            event(8_000, "b", "member_alive", "a"),
        ];
        let acts = [kill(100, "a"), missed, kill(5_000, "a")];
        assert_eq!(
            recoveries(&acts, &events),
            [
                Recovery { known: Some(1_100), served: Some(1_100), back: Some(1_600) },
                Recovery { known: None, served: Some(300), back: Some(300) },
            ]
        );
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(percentiles(vec![]), None);
        assert_eq!(percentiles(vec![7]), Some((7, 7)));
        assert_eq!(percentiles((1..=200).collect()), Some((100, 198)));
    }
}
