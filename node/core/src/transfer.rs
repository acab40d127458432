//! Fetches of peers: entries are read from the log and sent.

use std::collections::BTreeMap;

use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{EntryKey, JobId, NodeId, SlotSet};

use crate::Core;
use crate::task::{Purpose, Task, TaskOutput};

/// Bytes sent for one fetch; the asker asks again for the rest.
const FETCH_BYTES: u64 = 24 << 20;

impl Core {
    /// A peer wants entries.
    pub(crate) fn on_fetch(
        &mut self,
        from: NodeId,
        job: JobId,
        round: u64,
        wanted: &[EdgeCoverage],
    ) {
        if self.say_gone(from, job) {
            return self.out.send(from, PeerMessage::Fetched { job, round, idle_ms: None });
        }
        let mut bytes = 0;
        // One record may be wanted for several groups of slots; it is sent once.
        let mut found: BTreeMap<_, (EntryKey, SlotSet)> = BTreeMap::new();
        'all: for part in wanted {
            let Some(edge) = self.facts.holdings.edge(job, part.edge) else { continue };
            for (number, record, slots) in edge.wanted(part) {
                let key = EntryKey { job, edge: part.edge, number };
                let entry = found.entry(record).or_insert((key, SlotSet::EMPTY));
                if entry.1.is_empty() {
                    bytes += u64::from(record.len);
                }
                entry.1 = entry.1.or(slots);
                if bytes >= FETCH_BYTES {
                    break 'all;
                }
            }
        }
        if found.is_empty() {
            let idle_ms = self.idle_ms(job);
            return self.out.send(from, PeerMessage::Fetched { job, round, idle_ms });
        }
        let read = found.into_iter().map(|(record, (key, slots))| (key, record, slots)).collect();
        self.out.run(Task::Read(read), Purpose::Fetch { to: from, job, round });
    }

    pub(crate) fn on_fetch_task(&mut self, to: NodeId, job: JobId, round: u64, output: TaskOutput) {
        match output {
            TaskOutput::Entries(entries) => {
                for entry in entries {
                    self.out.send_with(to, PeerMessage::Moved, entry.encode());
                }
            }
            TaskOutput::Unreadable(entries) => self.drop_unreadable(&entries),
            other => tracing::error!(?other, "reading entries gave something else"),
        }
        let idle_ms = self.idle_ms(job);
        self.out.send(to, PeerMessage::Fetched { job, round, idle_ms });
    }

    fn idle_ms(&self, job: JobId) -> Option<u64> {
        self.idle(job).map(|idle| idle.as_millis() as u64)
    }
}
