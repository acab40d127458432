//! Links: numbered messages to and from each peer, in order, across reconnects. The router owns
//! them.
//!
//! A sender numbers its messages for each receiver, keeps the unacknowledged ones and sends them
//! again after a reconnect. A receiver handles each number once, in order, and acknowledges all
//! numbers below one. Numbers belong to the sender's *boot*, so a restarted sender never reuses
//! one.
//!
//! A link only saves work and promises nothing: a component that needs an answer asks again (the
//! end-to-end argument, Saltzer, Reed, Clark 1984). So a link may drop messages when its window is
//! full.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cortado_protocol::limits::PEER_FRAME_BYTES;
use cortado_protocol::peer::{Hello, LinkFrame, PeerMessage};
use cortado_protocol::{NodeId, frame};

/// Unacknowledged bytes to one peer beyond which no entries are queued.
const WINDOW_BYTES: usize = 48 << 20;
/// Unacknowledged bytes to one peer beyond which the queue is dropped.
const HARD_WINDOW_BYTES: usize = 96 << 20;

#[derive(Default)]
struct Outbound {
    next: u64,
    unacked: VecDeque<(u64, Bytes)>,
    bytes: usize,
    up: bool,
    /// How often the queue, or a message in it, was dropped.
    losses: u64,
    /// The link broke because the peer called a message misbehaviour.
    refused: bool,
    /// The number of the last message that the peer called misbehaviour.
    refused_at: Option<u64>,
}

struct Inbound {
    boot: u64,
    expected: u64,
    conn: Option<u64>,
}

/// All links of a node.
#[derive(Default)]
pub(crate) struct Links {
    outbound: BTreeMap<NodeId, Outbound>,
    inbound: BTreeMap<NodeId, Inbound>,
    /// Connections of peers that are not members yet: the newest of each.
    early: BTreeMap<NodeId, (u64, Hello)>,
    /// A planted fault that the simulator has to find; see [`crate::PlantedBug::ReuseNumbers`].
    reuse_numbers: bool,
}

/// The outcome of [`Links::push`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// Queued; write this frame now.
    Write(Bytes),
    /// Queued; it is written when the link is up.
    Waits,
    /// Not queued: too many bytes are unacknowledged.
    Dropped,
    /// Not queued: the peer would refuse the frame. Returns the message.
    TooLarge(Box<PeerMessage>),
}

impl Links {
    /// No links yet. `reuse_numbers` is a planted fault: after a restart, numbers start from zero
    /// under the old boot.
    pub(crate) fn new(reuse_numbers: bool) -> Self {
        Self { reuse_numbers, ..Self::default() }
    }

    /// Numbers and queues a message. `bulk` messages are dropped beyond the window.
    pub(crate) fn push(
        &mut self,
        peer: NodeId,
        message: PeerMessage,
        tail: &[u8],
        bulk: bool,
    ) -> Pushed {
        let link = self.outbound.entry(peer).or_default();
        if bulk && link.bytes + tail.len() > WINDOW_BYTES && link.bytes > 0 {
            return Pushed::Dropped;
        }
        let seq = link.next;
        let head = LinkFrame::Message { seq, message };
        let bytes = frame::encode(&head, tail);
        if !frame::fits(&bytes, PEER_FRAME_BYTES) {
            let LinkFrame::Message { message, .. } = head else { return Pushed::Dropped };
            return Pushed::TooLarge(Box::new(message));
        }
        if link.bytes + tail.len() > HARD_WINDOW_BYTES {
            link.clear();
        }
        link.next += 1;
        link.bytes += bytes.len();
        link.unacked.push_back((seq, bytes.clone()));
        if link.up { Pushed::Write(bytes) } else { Pushed::Waits }
    }

    /// The lowest number that this node still has for the peer; its hello names it.
    pub(crate) fn resume(&self, peer: NodeId) -> u64 {
        self.outbound.get(&peer).map_or(0, |l| l.unacked.front().map_or(l.next, |(seq, _)| *seq))
    }

    /// The dialled link is ready. Returns the frames to write, oldest first, and a message that is
    /// dropped because the peer called it misbehaviour twice.
    pub(crate) fn up(&mut self, peer: NodeId, expected: u64) -> (Vec<Bytes>, Option<PeerMessage>) {
        let link = self.outbound.entry(peer).or_default();
        link.up = true;
        link.acked(expected);
        let refused = link.take_refused(expected);
        if !self.reuse_numbers {
            link.renumber(expected);
        }
        (link.unacked.iter().map(|(_, bytes)| bytes.clone()).collect(), refused)
    }

    /// The dialled link broke. `refused`: the peer called a message misbehaviour.
    pub(crate) fn down(&mut self, peer: NodeId, refused: bool) {
        if let Some(link) = self.outbound.get_mut(&peer) {
            link.up = false;
            link.refused |= refused;
        }
    }

    /// The peer has handled everything below `next`.
    pub(crate) fn acked(&mut self, peer: NodeId, next: u64) {
        if let Some(link) = self.outbound.get_mut(&peer) {
            link.acked(next);
        }
    }

    /// The peer is down: drops its queue, whose messages would be outdated later.
    pub(crate) fn give_up(&mut self, peer: NodeId) {
        if let Some(link) = self.outbound.get_mut(&peer) {
            link.clear();
        }
    }

    /// How often queued messages to the peer were dropped. While the number stays the same, all
    /// queued messages arrive, unless the peer is restarted.
    pub(crate) fn losses(&self, peer: NodeId) -> u64 {
        self.outbound.get(&peer).map_or(0, |link| link.losses)
    }

    /// Number of the first message that the peer has not acknowledged, if there is one.
    pub(crate) fn oldest_unacknowledged(&self, peer: NodeId) -> Option<u64> {
        self.outbound.get(&peer)?.unacked.front().map(|(seq, _)| *seq)
    }

    /// Keeps an inbound hello until its peer is a member.
    pub(crate) fn keep_early(&mut self, conn: u64, hello: Hello) {
        self.early.insert(hello.node, (conn, hello));
    }

    /// Removes and returns the hellos kept of these peers.
    pub(crate) fn take_early(&mut self, members: &[NodeId]) -> Vec<(u64, Hello)> {
        members.iter().filter_map(|member| self.early.remove(member)).collect()
    }

    /// An inbound connection is closed.
    pub(crate) fn closed(&mut self, conn: u64) {
        self.early.retain(|_, (early, _)| *early != conn);
    }

    /// Accepts an inbound hello; returns the next expected number.
    pub(crate) fn accept(&mut self, conn: u64, hello: &Hello) -> u64 {
        let link = self.inbound.entry(hello.node).or_insert(Inbound {
            boot: hello.boot,
            expected: hello.seq,
            conn: None,
        });
        if link.boot != hello.boot {
            link.boot = hello.boot;
            link.expected = hello.seq;
        }
        link.expected = link.expected.max(hello.seq);
        link.conn = Some(conn);
        link.expected
    }

    /// Whether to handle a message with this number; if so, advances the expected number. Numbers
    /// that were handled before, and messages of a replaced connection, are not handled.
    pub(crate) fn expects(&mut self, conn: u64, from: NodeId, seq: u64) -> bool {
        match self.inbound.get_mut(&from) {
            Some(link) if link.conn == Some(conn) && seq >= link.expected => {
                link.expected = seq + 1;
                true
            }
            _ => false,
        }
    }

    /// The next expected number of a peer, for the acknowledgement.
    pub(crate) fn expected(&self, from: NodeId) -> u64 {
        self.inbound.get(&from).map_or(0, |link| link.expected)
    }
}

/// The message in a queued frame, and its tail.
fn queued(frame: &Bytes) -> Option<(PeerMessage, Bytes)> {
    match frame::decode(&frame.slice(frame::PREFIX_BYTES..)) {
        Ok((LinkFrame::Message { message, .. }, tail)) => Some((message, tail)),
        _ => None,
    }
}

impl Outbound {
    fn acked(&mut self, next: u64) {
        while let Some((seq, bytes)) = self.unacked.front() {
            if *seq >= next {
                break;
            }
            self.bytes -= bytes.len();
            self.unacked.pop_front();
        }
    }

    /// Removes the message that the peer called misbehaviour at the same number twice, because the
    /// peer would do so again.
    fn take_refused(&mut self, expected: u64) -> Option<PeerMessage> {
        if !std::mem::take(&mut self.refused) {
            return None;
        }
        if self.refused_at.replace(expected) != Some(expected) {
            return None;
        }
        self.refused_at = None;
        if self.unacked.front().is_none_or(|(seq, _)| *seq != expected) {
            return None;
        }
        let (_, bytes) = self.unacked.pop_front()?;
        self.bytes -= bytes.len();
        self.losses += 1;
        queued(&bytes).map(|(message, _)| message)
    }

    /// Closes the gap in the numbers after the queue was dropped. The peer never handled a number
    /// from `expected` on and ignores older connections, so these numbers are free.
    fn renumber(&mut self, expected: u64) {
        let first = self.unacked.front().map_or(self.next, |(seq, _)| *seq);
        if first == expected {
            return;
        }
        self.next = expected;
        self.bytes = 0;
        for (seq, bytes) in &mut self.unacked {
            let Some((message, tail)) = queued(bytes) else { continue };
            *seq = self.next;
            *bytes = frame::encode(&LinkFrame::Message { seq: self.next, message }, &tail);
            self.next += 1;
            self.bytes += bytes.len();
        }
    }

    fn clear(&mut self) {
        self.losses += u64::from(!self.unacked.is_empty());
        self.unacked.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::LogId;

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn hello(boot: u64, log: u128, seq: u64) -> Hello {
        let cluster = "c".to_owned();
        Hello { version: 1, cluster, node: node("b"), boot, log: LogId(log), seq }
    }

    #[test]
    fn unacknowledged_messages_are_written_again_after_a_reconnect() {
        let mut links = Links::default();
        let peer = node("b");
        assert_eq!(links.push(peer, PeerMessage::Store, b"0", true), Pushed::Waits);
        assert_eq!(links.up(peer, 0).0.len(), 1);
        assert!(matches!(links.push(peer, PeerMessage::Store, b"1", true), Pushed::Write(_)));
        links.acked(peer, 1);
        links.down(peer, false);
        assert_eq!(links.resume(peer), 1);
        assert_eq!(links.up(peer, 1).0.len(), 1);
        assert_eq!(links.up(peer, 2).0.len(), 0);
        assert_eq!(links.resume(peer), 2);
    }

    #[test]
    fn a_queue_that_was_given_up_leaves_no_gap() {
        let mut links = Links::default();
        let peer = node("b");
        links.push(peer, PeerMessage::Store, b"0", true);
        links.push(peer, PeerMessage::Store, b"1", true);
        links.give_up(peer);
        links.push(peer, PeerMessage::Store, b"2", true);
        let (frames, _) = links.up(peer, 0);
        let (head, tail): (LinkFrame, Bytes) = frame::decode(&frames[0].slice(4..)).unwrap();
        assert_eq!(head, LinkFrame::Message { seq: 0, message: PeerMessage::Store });
        assert_eq!(&tail[..], b"2");
        assert_eq!(links.resume(peer), 0);
        assert!(matches!(links.push(peer, PeerMessage::Store, b"3", true), Pushed::Write(_)));
        links.acked(peer, 2);
        assert_eq!(links.resume(peer), 2);
    }

    #[test]
    fn each_number_is_handled_once_and_only_on_the_newest_connection() {
        let mut links = Links::default();
        let from = node("b");
        assert_eq!(links.accept(1, &hello(1, 1, 0)), 0);
        assert!(links.expects(1, from, 0));
        assert!(!links.expects(1, from, 0));
        assert_eq!(links.accept(2, &hello(1, 1, 0)), 1);
        assert!(!links.expects(1, from, 1));
        assert!(links.expects(2, from, 1));
        assert_eq!(links.accept(3, &hello(2, 1, 0)), 0, "another boot counts anew");
    }

    #[test]
    fn whoever_is_early_is_kept_until_it_is_a_member_or_gone() {
        let mut links = Links::default();
        links.keep_early(1, hello(1, 1, 0));
        assert_eq!(links.take_early(&[node("a")]), []);
        links.keep_early(2, hello(2, 1, 0));
        links.closed(1);
        assert_eq!(links.take_early(&[node("a"), node("b")]), [(2, hello(2, 1, 0))]);
        links.keep_early(3, hello(2, 1, 0));
        links.closed(3);
        assert_eq!(links.take_early(&[node("b")]), []);
    }

    #[test]
    fn a_frame_that_the_peer_would_refuse_is_not_queued_and_uses_no_number() {
        let mut links = Links::default();
        let peer = node("b");
        links.up(peer, 0);
        let tail = vec![0; PEER_FRAME_BYTES];
        assert!(matches!(links.push(peer, PeerMessage::Store, &tail, true), Pushed::TooLarge(_)));
        let message = "x".repeat(cortado_protocol::limits::HEAD_BYTES);
        let failed =
            PeerMessage::WorkFailed { job: cortado_protocol::JobId(1), attempt: 1, message };
        let pushed = links.push(peer, failed.clone(), b"", false);
        assert_eq!(pushed, Pushed::TooLarge(Box::new(failed)));
        assert!(matches!(links.push(peer, PeerMessage::Ping, b"", false), Pushed::Write(_)));
        assert_eq!(links.resume(peer), 0);
        links.acked(peer, 1);
        assert_eq!(links.resume(peer), 1);
    }

    #[test]
    fn what_a_peer_calls_misbehaviour_twice_is_not_sent_a_third_time() {
        let mut links = Links::default();
        let peer = node("b");
        links.push(peer, PeerMessage::Ping, b"", false);
        links.push(peer, PeerMessage::Store, b"bad", true);
        links.push(peer, PeerMessage::Store, b"good", true);
        links.up(peer, 0);
        for _ in 0..3 {
            // A link that breaks without a refusal does not count.
            links.down(peer, false);
            assert_eq!(links.up(peer, 1).1, None);
        }
        links.down(peer, true);
        let (frames, refused) = links.up(peer, 1);
        assert_eq!((frames.len(), refused), (2, None));
        links.down(peer, true);
        let (frames, refused) = links.up(peer, 1);
        assert_eq!((frames.len(), refused), (1, Some(PeerMessage::Store)));
        let (head, tail): (LinkFrame, Bytes) = frame::decode(&frames[0].slice(4..)).unwrap();
        assert_eq!(head, LinkFrame::Message { seq: 1, message: PeerMessage::Store });
        assert_eq!((&tail[..], links.losses(peer)), (&b"good"[..], 1));
        // Another number is counted from the beginning.
        links.down(peer, true);
        assert_eq!(links.up(peer, 1).1, None);
    }

    #[test]
    fn the_window_drops_bulk_and_keeps_control() {
        let mut links = Links::default();
        let peer = node("b");
        let big = vec![0; WINDOW_BYTES / 4 + 1];
        for _ in 0..3 {
            assert_eq!(links.push(peer, PeerMessage::Store, &big, true), Pushed::Waits);
        }
        assert_eq!(links.push(peer, PeerMessage::Store, &big, true), Pushed::Dropped);
        assert_eq!(links.push(peer, PeerMessage::Store, b"x", false), Pushed::Waits);
    }
}
