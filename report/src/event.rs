//! What happened in the cluster.

use cortado_protocol::NodeId;
use cortado_protocol::event::{Event as Seen, Happening};
use cortado_protocol::health::Illness;
use serde::Serialize;
use utoipa::ToSchema;

/// Something that happened, as one node saw it. Fields that do not apply are left out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// When (RFC 3339).
    pub time: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The node that saw it.
    pub seen_by: String,
    /// The boot of that node: each boot numbers its events from the start.
    pub boot: u64,
    /// Its number within the boot.
    pub number: u64,
    /// What happened, as a word.
    pub event: &'static str,
    /// What happened, as a sentence.
    pub message: String,
    /// The node that it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The generation of a node that started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The term of an election.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// `loop`, `disk` or `links`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub illness: Option<Illness>,
    /// Whether a node is ended before it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<bool>,
    /// Which revival within five minutes it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Revivals within five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// `process` or `docker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reviver: Option<String>,
    /// Why, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long a disturbance lasts, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u32>,
}

impl Event {
    /// An event that a node saw in one of its boots.
    #[must_use]
    pub fn new(by: NodeId, boot: u64, seen: &Seen) -> Self {
        let what = &seen.what;
        let mut event = Self {
            time: time_of(seen.unix_ms),
            unix_ms: seen.unix_ms,
            seen_by: by.to_string(),
            boot,
            number: seen.number,
            event: what.name(),
            message: what.to_string(),
            node: what.node().map(|node| node.to_string()),
            generation: None,
            term: None,
            illness: None,
            kill: None,
            attempt: None,
            attempts: None,
            reviver: None,
            reason: None,
            for_ms: None,
        };
        event.add(what);
        event
    }

    fn add(&mut self, what: &Happening) {
        match what {
            Happening::Started { generation } => self.generation = Some(*generation),
            Happening::Election { term } | Happening::Elected { term, .. } => {
                self.term = Some(*term);
            }
            Happening::Reviving { kill, attempt, reviver, .. } => {
                self.kill = Some(*kill);
                self.attempt = Some(*attempt);
                self.reviver = Some(reviver.clone());
            }
            Happening::ReviveFailed { reason, .. } | Happening::LeftAlone { reason, .. } => {
                self.reason = Some(reason.clone());
            }
            Happening::MemberIll { ill, .. } => {
                self.illness = Some(ill.illness);
                self.reason = Some(ill.to_string());
            }
            Happening::CrashLooping { attempts, .. } => self.attempts = Some(*attempts),
            Happening::Disturbed { for_ms, .. } => self.for_ms = Some(*for_ms),
            Happening::MemberAlive(_)
            | Happening::MemberDraining(_)
            | Happening::MemberDown(_)
            | Happening::MemberLeft(_)
            | Happening::Revived(_)
            | Happening::Healed => {}
        }
    }
}

/// A time in UTC with milliseconds, in the format of RFC 3339.
#[must_use]
pub fn time_of(unix_ms: u64) -> String {
    let whole = cortado_stream::time_text((unix_ms / 1000 * 1000).try_into().unwrap_or(i64::MAX));
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let seen = Seen { number: 7, unix_ms: 1_704_103_610_045, what };
        assert_eq!(
            serde_json::to_value(Event::new(node("node-5"), 9, &seen)).unwrap(),
            json!({
                "time": "2024-01-01T10:06:50.045Z", "unix_ms": 1_704_103_610_045_u64,
                "seen_by": "node-5", "boot": 9, "number": 7, "event": "reviving",
                "node": "node-3", "kill": false, "attempt": 2, "reviver": "process",
                "message": "starts node-3 by process, 2 in 5 minutes",
            })
        );
    }
}
