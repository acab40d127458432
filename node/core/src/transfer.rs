//! Transfer: reads the entries that a peer fetches from the log, and sends them. The router calls
//! it.

use std::collections::BTreeMap;

use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{EntryKey, SlotSet};

use crate::facts::Facts;
use crate::outbox::Outbox;
use crate::purpose::{Fetch, Purpose};
use crate::task::{Task, TaskOutput};

/// Bytes sent for one fetch; the peer fetches the rest again.
const FETCH_BYTES: u64 = 24 << 20;

impl Fetch {
    /// Reads the wanted entries, up to [`FETCH_BYTES`]. If this node has none of them, the answer
    /// ends at once. `idle_ms` is the time without a sign of life of the job.
    pub(crate) fn read(
        self,
        facts: &Facts,
        out: &mut Outbox,
        wanted: &[EdgeCoverage],
        idle_ms: Option<u64>,
    ) {
        let mut bytes = 0;
        // One record may be wanted for several groups of slots; it is sent only once.
        let mut found: BTreeMap<_, (EntryKey, SlotSet)> = BTreeMap::new();
        'all: for part in wanted {
            let Some(edge) = facts.ledger.edge(self.job, part.edge) else { continue };
            for (number, record, slots) in edge.wanted(part) {
                let key = EntryKey { job: self.job, edge: part.edge, number };
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
            return self.end(out, idle_ms);
        }
        let read = found.into_iter().map(|(record, (key, slots))| (key, record, slots)).collect();
        out.run(Task::Read(read), Purpose::Fetch(self));
    }

    /// Sends the entries that were read.
    pub(crate) fn send(self, out: &mut Outbox, output: TaskOutput, idle_ms: Option<u64>) {
        match output {
            TaskOutput::Entries(entries) => {
                for entry in entries {
                    out.send_with(self.from, PeerMessage::Moved, entry.encode());
                }
            }
            TaskOutput::Unreadable(_) => {}
            other => tracing::error!(?other, "reading entries gave something else"),
        }
        self.end(out, idle_ms);
    }

    /// Tells the peer that no more entries follow.
    pub(crate) fn end(self, out: &mut Outbox, idle_ms: Option<u64>) {
        let Self { from, job, round } = self;
        out.send(from, PeerMessage::Fetched { job, round, idle_ms });
    }
}
