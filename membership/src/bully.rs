//! The Bully election: the live node with the highest name leads.
//!
//! Owns one node's part in the election: the candidates, the leader and its term. Once views agree
//! and messages arrive, all nodes have the same leader. During a cut each side has a leader, so
//! whatever a leader does must be safe while another one leads. Sans-IO; driven by
//! [`Membership`](crate::Membership).
//!
//! A node without a leader sends `Election` to all nodes with a higher name. A live node replies
//! with `Answer` and, if it knows no leader either, asks the nodes above itself. A node that
//! receives no answer leads, and sends `Coordinator` to all. A higher node that returns takes the
//! lead back. Method: H. Garcia-Molina, "Elections in a distributed computing system", IEEE
//! Transactions on Computers C-31(1), 1982.
//!
//! Here messages get lost, doubled and late, and views differ. So there is more than in the paper:
//! - *terms*: each new lead has a higher term, and a node corrects an older claim instead of
//!   following it;
//! - repetition: a leader repeats its claim every two seconds, and a candidate repeats its
//!   question;
//! - messages from nodes outside the view are dropped.
//!
//! ```
//! use std::time::Duration;
//! use cortado_membership::bully::{Election, Output};
//!
//! let mut election = Election::new("node-1".parse().unwrap());
//! election.set_view(Duration::ZERO, &["node-1".parse().unwrap()]);
//! assert!(matches!(election.poll_output(), Some(Output::Leader { leader: Some(_), term: 1 })));
//! ```

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

/// How long to wait for an answer before asking again.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);
/// How many times a node asks before it claims the lead without an answer.
const ASKS: u32 = 3;
/// How long a node that answered may take to claim the lead.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often a leader repeats its claim, since messages get lost.
const REPEAT: Duration = Duration::from_secs(2);
/// Shortest time between two claims that only contradict other claims. Without this pause, two
/// nodes with different views that both claim the lead would send claims to each other, and to all
/// other nodes, as fast as the network carries them.
const COUNTER_PAUSE: Duration = Duration::from_millis(250);
/// Messages with a term this far above ours are dropped: to follow one would use up the counter.
const LEAP: u64 = 1 << 32;

/// A message between nodes. It carries the highest term that the sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// To all higher nodes: asks whether one of them is alive.
    Election {
        /// Highest term known.
        term: u64,
    },
    /// To a lower node: a higher node is alive and takes over. To a node that claims the lead
    /// wrongly or with an old term: the term to count on from.
    Answer {
        /// Highest term known.
        term: u64,
    },
    /// To all: the sender leads.
    Coordinator {
        /// The term of this lead.
        term: u64,
    },
}

impl Message {
    const fn term(self) -> u64 {
        match self {
            Self::Election { term } | Self::Answer { term } | Self::Coordinator { term } => term,
        }
    }
}

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message, once; nothing depends on its arrival.
    Send {
        /// The addressee.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// The leader has changed, or its term has.
    Leader {
        /// The leader; `None` during an election.
        leader: Option<NodeId>,
        /// The leader's term, or the highest known if there is none.
        term: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A leader is known, or there is no election: before the first view, or while this node
    /// abstains.
    Settled,
    /// Higher nodes were asked `asks` times.
    Asking { asks: u32 },
    /// A higher node answered and is expected to claim the lead.
    Promised,
}

/// One node's part in the election.
#[derive(Debug)]
pub struct Election {
    me: NodeId,
    /// Nodes that may lead. Includes this node, even while it abstains.
    live: BTreeSet<NodeId>,
    /// Nodes that receive the claims of a leader, including those that may not lead.
    audience: BTreeSet<NodeId>,
    /// This node may not lead: it only follows.
    abstains: bool,
    leader: Option<NodeId>,
    term: u64,
    phase: Phase,
    claimed_at: Option<Duration>,
    /// When [`Self::tick`] is due.
    deadline: Option<Duration>,
    reported: (Option<NodeId>, u64),
    outbox: VecDeque<Output>,
}

impl Election {
    /// An election without members. The node takes part from its first [`Self::set_view`] on.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            live: BTreeSet::new(),
            audience: BTreeSet::new(),
            abstains: false,
            leader: None,
            term: 0,
            phase: Phase::Settled,
            claimed_at: None,
            deadline: None,
            reported: (None, 0),
            outbox: VecDeque::new(),
        }
    }

    /// Sets the nodes that may lead and follow. This node need not be in the list.
    pub fn set_view(&mut self, now: Duration, live: &[NodeId]) {
        self.set_candidates(now, live, live, false);
    }

    /// Sets the nodes that may lead (`live`) and all nodes that may follow (`audience`). A node
    /// that `abstains` may not lead: it gives the lead up, and follows any node that claims it.
    pub fn set_candidates(
        &mut self,
        now: Duration,
        live: &[NodeId],
        audience: &[NodeId],
        abstains: bool,
    ) {
        let with_me = |nodes: &[NodeId]| nodes.iter().copied().chain([self.me]).collect();
        let (live, audience) = (with_me(live), with_me(audience));
        self.live = live;
        let before = std::mem::replace(&mut self.audience, audience);
        let returns = std::mem::replace(&mut self.abstains, abstains) && !abstains;
        if abstains {
            if self.leader.is_none_or(|leader| leader == self.me || !self.live.contains(&leader)) {
                (self.leader, self.phase, self.deadline) = (None, Phase::Settled, None);
            }
            return self.report();
        }
        if returns {
            self.elect(now);
            return self.report();
        }
        let usurped = self.leads() && self.higher().next().is_some();
        if usurped || self.leader.is_none_or(|leader| !self.live.contains(&leader)) {
            self.leader = None;
            self.elect(now);
        } else if self.leads() {
            // Only new members receive the claim: a claim to all for each new member would be a
            // storm.
            let new: Vec<NodeId> = self.audience.difference(&before).copied().collect();
            let message = Message::Coordinator { term: self.term };
            new.into_iter().for_each(|to| self.send(to, message));
        }
        self.report();
    }

    /// Handles a message. `from` is the name in the sender's certificate. Messages may arrive twice
    /// or too late.
    pub fn handle(&mut self, now: Duration, from: NodeId, message: Message) {
        let unknown = !self.audience.contains(&from) || from == self.me;
        if unknown || message.term() > self.term.saturating_add(LEAP) {
            return;
        }
        if self.abstains {
            if let Message::Coordinator { term } = message
                && (term >= self.term || self.leader.is_none())
            {
                (self.leader, self.term) = (Some(from), term);
            }
            return self.report();
        }
        let may_lead = self.live.contains(&from);
        match message {
            Message::Election { term } if from < self.me || !may_lead => {
                self.learn(term);
                if self.leads() {
                    self.send(from, Message::Coordinator { term: self.term });
                    return self.report();
                }
                self.send(from, Message::Answer { term: self.term });
                // A node that follows a leader does not ask again: the leader answers the question
                // itself, and if the leader is dead, the next view says so. Otherwise each question
                // would cause as many questions as there are nodes.
                if self.phase == Phase::Settled && self.leader.is_none() {
                    self.elect(now);
                }
            }
            // The sender has the higher name and may lead: its view differs from ours. Use only its
            // term.
            Message::Election { term } => self.learn(term),
            Message::Answer { term } if !may_lead => self.learn(term),
            Message::Answer { term } => self.answered(now, from, term),
            Message::Coordinator { term } => self.claimed(now, from, term),
        }
        self.report();
    }

    /// Acts on a timeout. Call it at [`Self::next_deadline`].
    pub fn tick(&mut self, now: Duration) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.phase {
            Phase::Settled if self.leads() => self.claim(now, self.term),
            Phase::Settled | Phase::Promised => self.elect(now),
            Phase::Asking { asks } if asks < ASKS => self.ask(now, asks + 1),
            Phase::Asking { .. } => self.claim(now, self.term + 1),
        }
        self.report();
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The next output. Drain all outputs after every call of any other method.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// The leader and its term; `None` during an election.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, u64)> {
        self.leader.map(|leader| (leader, self.term))
    }

    /// Whether this node leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader == Some(self.me)
    }

    /// Repeats the claim if this node leads. The owner calls it when it has news to send with the
    /// claim.
    pub fn repeat(&mut self, now: Duration) {
        if self.leads() {
            self.claim(now, self.term);
        }
    }

    fn answered(&mut self, now: Duration, from: NodeId, term: u64) {
        let behind = term > self.term;
        self.learn(term);
        if self.leads() && from > self.me {
            // This node led only because it did not see the higher node.
            self.elect(now);
        } else if self.leads() && behind {
            // The sender has seen a higher term, maybe this node's own from before a restart.
            self.counter(now, term + 1);
        } else if from > self.me && matches!(self.phase, Phase::Asking { .. }) {
            self.phase = Phase::Promised;
            self.deadline = Some(now + CLAIM_TIMEOUT);
        }
    }

    fn claimed(&mut self, now: Duration, from: NodeId, term: u64) {
        if from < self.me || !self.live.contains(&from) {
            // The sender may not take the lead, but its term is used.
            self.learn(term);
            if self.leads() {
                self.counter(now, self.term.max(term + 1));
            } else if self.leader.is_some() {
                self.send(from, Message::Answer { term: self.term });
            } else if self.phase == Phase::Settled {
                self.elect(now);
            }
        } else if term < self.term {
            self.send(from, Message::Answer { term: self.term });
        } else if self.leader.is_none_or(|leader| leader <= from || !self.live.contains(&leader)) {
            self.term = term;
            self.leader = Some(from);
            self.phase = Phase::Settled;
            self.deadline = None;
        }
    }

    /// Raises the term to `term` while no leader is known. A known leader's term stays as it is.
    fn learn(&mut self, term: u64) {
        if self.leader.is_none() {
            self.term = self.term.max(term);
        }
    }

    fn elect(&mut self, now: Duration) {
        self.leader = None;
        if self.higher().next().is_some() {
            self.ask(now, 1);
        } else {
            self.claim(now, self.term + 1);
        }
    }

    fn ask(&mut self, now: Duration, asks: u32) {
        self.phase = Phase::Asking { asks };
        self.deadline = Some(now + ANSWER_TIMEOUT);
        let term = self.term;
        let send = |to| Output::Send { to, message: Message::Election { term } };
        let asked: Vec<Output> = self.higher().map(send).collect();
        self.outbox.extend(asked);
    }

    /// Claims the lead against a wrong claim: now, or `COUNTER_PAUSE` after the last claim.
    fn counter(&mut self, now: Duration, term: u64) {
        match self.claimed_at.map(|at| at + COUNTER_PAUSE) {
            Some(due) if now < due => {
                self.term = self.term.max(term);
                self.deadline = self.deadline.map(|deadline| deadline.min(due));
            }
            _ => self.claim(now, term),
        }
    }

    fn claim(&mut self, now: Duration, term: u64) {
        self.term = term;
        self.claimed_at = Some(now);
        self.leader = Some(self.me);
        self.phase = Phase::Settled;
        self.deadline = Some(now + REPEAT);
        let others = self.audience.iter().filter(|id| **id != self.me);
        let message = Message::Coordinator { term };
        self.outbox.extend(others.map(|to| Output::Send { to: *to, message }));
    }

    fn higher(&self) -> impl Iterator<Item = NodeId> {
        let me = self.me;
        self.live.iter().copied().filter(move |id| *id > me)
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.outbox.push_back(Output::Send { to, message });
    }

    fn report(&mut self) {
        let current = (self.leader, self.term);
        let changed =
            current.0 != self.reported.0 || (current.0.is_some() && current.1 != self.reported.1);
        if changed {
            self.reported = current;
            self.outbox.push_back(Output::Leader { leader: current.0, term: current.1 });
        }
    }
}
