//! `cortado log`.

use std::sync::Arc;
use std::time::Duration;

use cortado_protocol::event::Happening;
use serde_json::{Map, Value, json};

use super::output::Output;
use crate::events::{Events, Seen};
use crate::{Cluster, Error};

/// How long a request waits for events. A node that has just joined is asked after this time at
/// most.
const ROUND: Duration = Duration::from_secs(1);

pub(super) async fn log(cluster: Arc<Cluster>, follow: bool, output: Output) -> Result<(), Error> {
    let mut events = Events::new(cluster);
    print(&events.next(Duration::ZERO).await?, output)?;
    if !follow {
        return Ok(());
    }
    loop {
        match events.next(ROUND).await {
            Ok(news) => print(&news, output)?,
            // `--follow` continues until the cluster returns.
            Err(Error::Unreachable(reason)) => super::output::note(&reason),
            Err(error) => return Err(error),
        }
    }
}

fn print(events: &[Seen], output: Output) -> Result<(), Error> {
    for seen in events {
        if output.json {
            output.line(&event_json(seen).to_string())?;
        } else {
            let Seen { by, event, .. } = seen;
            output.line(&format!("{}  {by}: {}", time(event.unix_ms), event.what))?;
        }
    }
    Ok(())
}

/// An event as JSON; see docs/cli-json.md.
fn event_json(seen: &Seen) -> Value {
    let what = &seen.event.what;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.into(), value);
    };
    put("time", time(seen.event.unix_ms).into());
    put("unix_ms", seen.event.unix_ms.into());
    put("seen_by", json!(seen.by));
    put("boot", seen.boot.into());
    put("number", seen.event.number.into());
    put("event", what.name().into());
    if let Some(node) = what.node() {
        put("node", json!(node));
    }
    match what {
        Happening::Started { generation } => put("generation", (*generation).into()),
        Happening::Election { term } | Happening::Elected { term, .. } => {
            put("term", (*term).into());
        }
        Happening::Reviving { kill, attempt, reviver, .. } => {
            put("kill", (*kill).into());
            put("attempt", (*attempt).into());
            put("reviver", reviver.as_str().into());
        }
        Happening::ReviveFailed { reason, .. } | Happening::LeftAlone { reason, .. } => {
            put("reason", reason.as_str().into());
        }
        Happening::MemberIll { ill, .. } => {
            put("illness", json!(ill.illness));
            put("reason", ill.to_string().into());
        }
        Happening::CrashLooping { attempts, .. } => put("attempts", (*attempts).into()),
        Happening::Disturbed { for_ms, .. } => put("for_ms", (*for_ms).into()),
        Happening::MemberAlive(_)
        | Happening::MemberDraining(_)
        | Happening::MemberDown(_)
        | Happening::MemberLeft(_)
        | Happening::Revived(_)
        | Happening::Healed => {}
    }
    put("message", what.to_string().into());
    Value::Object(fields)
}

/// A time in UTC, in the format of RFC 3339.
fn time(unix_ms: u64) -> String {
    let seconds = cortado_engine::timestamp_text((unix_ms / 1000) as i64);
    format!("{}.{:03}Z", seconds.replace(' ', "T"), unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use cortado_protocol::event::Event;

    use super::*;

    #[test]
    fn an_event_is_the_same_for_people_and_programs() {
        let node = |name: &str| name.parse().unwrap();
        let what = Happening::Reviving {
            node: node("node-3"),
            kill: false,
            attempt: 2,
            reviver: "process".into(),
        };
        let event = Event { number: 7, unix_ms: 1_704_103_610_045, what };
        let seen = Seen { by: node("node-5"), boot: 9, event };
        assert_eq!(
            event_json(&seen),
            json!({
                "time": "2024-01-01T10:06:50.045Z", "unix_ms": 1_704_103_610_045_u64,
                "seen_by": "node-5", "boot": 9, "number": 7, "event": "reviving",
                "node": "node-3", "kill": false, "attempt": 2, "reviver": "process",
                "message": "starts node-3 by process, 2 in 5 minutes",
            })
        );
    }
}
