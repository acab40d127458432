//! The clients of the simulated cluster: one with a job, the owner of a stream, a publisher.

use std::time::Duration;

use bytes::Bytes;
use cortado_engine::Durability;
use cortado_protocol::client::{BatchReply, ClientResponse};
use cortado_protocol::job::BatchHeader;
use cortado_protocol::{Edge, JobId, NodeId};

use super::client::{Sent, SimClient};
use super::stream::{SimPublisher, StreamOwner};

/// See the module's description.
pub(crate) enum Actor {
    Job(Box<SimClient>),
    Owner(Box<StreamOwner>),
    Publisher(Box<SimPublisher>),
}

impl Actor {
    pub(crate) fn job(&self) -> JobId {
        match self {
            Self::Job(client) => client.data.spec.job,
            Self::Owner(owner) => owner.job(),
            Self::Publisher(publisher) => publisher.job(),
        }
    }

    /// Number of the process: answers to an earlier one are nobody's.
    pub(crate) fn life(&self) -> u64 {
        match self {
            Self::Job(client) => client.life,
            Self::Owner(_) => 0,
            Self::Publisher(publisher) => publisher.life,
        }
    }

    /// Batches acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        match self {
            Self::Job(client) => client.acknowledged.len(),
            Self::Owner(_) => 0,
            Self::Publisher(publisher) => publisher.acknowledged.len(),
        }
    }

    /// What to send now, and to whom (`None`: any node).
    pub(crate) fn poll(&mut self, now: Duration, live: &[NodeId]) -> Vec<(Option<NodeId>, Sent)> {
        match self {
            Self::Job(client) => client.poll(now, live),
            Self::Owner(owner) => owner.poll(now),
            Self::Publisher(publisher) => publisher.poll(now, live),
        }
    }

    pub(crate) fn on_response(&mut self, now: Duration, response: ClientResponse, tail: Bytes) {
        match self {
            Self::Job(client) => client.on_response(now, response, tail),
            Self::Owner(owner) => owner.on_response(now, response, &tail),
            Self::Publisher(publisher) => publisher.on_response(now, response),
        }
    }

    pub(crate) fn on_batch_reply(&mut self, now: Duration, reply: BatchReply) {
        match self {
            Self::Job(client) => client.on_batch_reply(now, reply),
            Self::Owner(_) => {}
            Self::Publisher(publisher) => publisher.on_batch_reply(now, reply),
        }
    }

    /// A batch that it sends.
    pub(crate) fn batch(&self, table: usize, number: u64) -> Option<(BatchHeader, Bytes)> {
        match self {
            Self::Job(client) => Some(client.data.batch(table, number)),
            Self::Owner(_) => None,
            Self::Publisher(publisher) => Some(publisher.batch(number)),
        }
    }

    /// The edge of a batch that was answered.
    pub(crate) fn edge(&self, table: u16) -> Edge {
        match self {
            Self::Publisher(publisher) => publisher.edge(),
            _ => Edge::table(table.into()),
        }
    }

    /// The number of a batch beyond the end of a table, as a broken client may send it.
    pub(crate) fn beyond_end(&self, table: usize) -> Option<u64> {
        match self {
            Self::Job(client) => Some(client.data.tables[table].len() as u64),
            _ => None,
        }
    }

    /// Whether it wants nothing more.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Job(client) => client.is_over(),
            Self::Owner(owner) => owner.is_over(),
            Self::Publisher(publisher) => publisher.is_over(),
        }
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        match self {
            Self::Job(client) => client.failure(),
            Self::Owner(owner) => owner.failed.as_deref(),
            Self::Publisher(publisher) => publisher.failed.as_deref(),
        }
    }

    /// The process dies, and another one goes on; returns whether it did.
    pub(crate) fn resume(&mut self) -> bool {
        match self {
            Self::Job(client) => client.resume(),
            Self::Owner(_) => false,
            Self::Publisher(publisher) => publisher.resume(),
        }
    }

    /// Whether its job is done, and kept.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Job(client) => client.result().is_some(),
            Self::Owner(owner) => owner.is_over(),
            Self::Publisher(_) => false,
        }
    }

    /// Whether it was told that its job is deleted.
    pub(crate) fn has_deleted(&self) -> bool {
        matches!(self, Self::Job(client) if client.has_deleted())
    }

    /// Whether it has asked for its job to be deleted.
    pub(crate) fn asked_to_delete(&self) -> bool {
        matches!(self, Self::Job(client) if client.asked_to_delete)
    }

    /// Where it stands, for a failing run's report.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Job(client) => client.describe(),
            Self::Owner(owner) => owner.describe(),
            Self::Publisher(publisher) => publisher.describe(),
        }
    }

    /// Of a publisher: checks that every acknowledged batch counts, by its seal.
    pub(crate) fn compare_sealed(&self, owner: &StreamOwner) -> Result<(), String> {
        match self {
            Self::Publisher(publisher) => publisher.compare(owner.seal_of(publisher.edge())),
            _ => Ok(()),
        }
    }

    /// Compares what it got with the model.
    pub(crate) fn compare(&self, durability: Durability) -> Result<(), String> {
        let client = match self {
            Self::Job(client) => client,
            Self::Owner(owner) => return owner.compare(),
            Self::Publisher(_) => return Ok(()),
        };
        let expected = client.data.answer(durability);
        let expected: Vec<u8> =
            expected.iter().flat_map(|file| file.bytes.iter().copied()).collect();
        // Cancelled, or expired.
        let ended = client.is_over() && client.result().is_none();
        if !ended && client.result().is_none_or(|result| result[..] != expected[..]) {
            let got = String::from_utf8_lossy(client.result().map_or(&[][..], |bytes| bytes));
            let want = String::from_utf8_lossy(&expected);
            let mut lines = want.lines().zip(got.lines());
            let differs = lines.find(|(want, got)| want != got);
            return Err(format!("the result is not the model's: expected and got {differs:?}"));
        }
        Ok(())
    }
}
