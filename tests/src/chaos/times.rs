//! How long a killed node was missed, by what the others say of it.

use serde_json::Value;

/// What the others saw of a node that was killed, in milliseconds since then. A cluster that starts it
/// again before anybody has missed it knows nothing of its death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Until the last of them that missed it knew that it was down.
    pub known: Option<u64>,
    /// Until none of them counted on the dead process any more: what it did is done by others, or by
    /// itself again.
    pub served: Option<u64>,
    /// Until all of them saw it alive again.
    pub back: Option<u64>,
}

/// One for each kill, from the lines of `cortado chaos run --json` and `cortado log --json`.
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

fn recovery(killed: u64, until: u64, node: &str, events: &[Value]) -> Recovery {
    // Per witness: when it first saw the node down, and alive.
    let mut witnesses: std::collections::BTreeMap<&str, (Option<u64>, Option<u64>)> =
        std::collections::BTreeMap::new();
    let about = |event: &&Value| event["node"] == node && event["seen_by"] != node;
    for event in events.iter().filter(about) {
        let (Some(at), Some(by)) = (event["unix_ms"].as_u64(), event["seen_by"].as_str()) else {
            continue;
        };
        if at < killed || at >= until {
            continue;
        }
        let (down, alive) = witnesses.entry(by).or_default();
        let first = match event["event"].as_str() {
            Some("member_down") => down,
            Some("member_alive") => alive,
            _ => continue,
        };
        *first = Some(first.map_or(at, |first| first.min(at)));
    }
    let last = |times: Vec<u64>| times.into_iter().max().map(|at| at - killed);
    let times = witnesses.values();
    Recovery {
        known: last(times.clone().filter_map(|(down, _)| *down).collect()),
        served: last(
            times
                .clone()
                .filter_map(|(down, alive)| [*down, *alive].into_iter().flatten().min())
                .collect(),
        ),
        back: last(times.filter_map(|(_, alive)| *alive).collect()),
    }
}

/// Median and 99th percentile (nearest rank), in milliseconds; none of no times.
pub(super) fn percentiles(mut times: Vec<u64>) -> Option<(u64, u64)> {
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
        let events = [
            event(50, "b", "member_alive", "a"),
            event(1_000, "b", "member_down", "a"),
            event(1_200, "c", "member_down", "a"),
            event(1_500, "b", "member_alive", "a"),
            event(1_700, "c", "member_alive", "a"),
            event(1_800, "a", "member_alive", "a"),
            event(5_300, "b", "member_alive", "a"),
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
