//! The Bully election: among the live nodes the one with the highest name leads.
//!
//! Sans-IO. A node that misses its leader asks all nodes with a higher name (`Election`); each that
//! lives takes over (`Answer`) and asks on; who hears no answer leads and says so (`Coordinator`).
//! A higher node that returns takes the lead back. Method: H. Garcia-Molina, "Elections in a
//! distributed computing system", IEEE Transactions on Computers C-31(1), 1982.
//!
//! Added to it, because here messages get lost, doubled and late, and views differ: *terms* (a
//! leader's claim counts up; an older claim is corrected, not followed), repetition (a leader repeats
//! its claim every two seconds, an election its question), and no reaction to nodes outside the view.
//! During a cut each side has a leader; whatever a leader does must bear that.
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
/// How often to ask before taking the silence for an answer.
const ASKS: u32 = 3;
/// How long whoever answered may take to claim the lead.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often a leader repeats its claim, for those who missed it.
const REPEAT: Duration = Duration::from_secs(2);
/// Shortest time between two claims that only contradict others. Two nodes that both think the lead to
/// be theirs, for their views differ, would tell each other so as fast as the network carries it, and
/// everyone else each time.
const COUNTER_PAUSE: Duration = Duration::from_millis(250);
/// A term this far above ours is no term but an attack on the counter.
const LEAP: u64 = 1 << 32;

/// What nodes say to each other. Carries the highest term the sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// To all higher nodes: does one of you live?
    Election {
        /// Highest term known.
        term: u64,
    },
    /// To a lower node: I do, leave it to me. To a leader with an old term: count on from this one.
    Answer {
        /// Highest term known.
        term: u64,
    },
    /// To all: I lead.
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
        /// What to say.
        message: Message,
    },
    /// The leader has changed, or its term has.
    Leader {
        /// Who leads now; `None` while there is an election.
        leader: Option<NodeId>,
        /// The leader's term, or the highest known if there is none.
        term: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A leader is known (or nothing is: before the first view).
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
    /// Nodes that may lead, this one included.
    live: BTreeSet<NodeId>,
    /// Nodes to be told who leads: also those that may not lead.
    audience: BTreeSet<NodeId>,
    /// This node may not lead: it only learns who does.
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
    /// A node that knows nobody yet. It takes part from its first [`Self::set_view`] on.
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

    /// The nodes that may lead and be led now, this one included or not.
    pub fn set_view(&mut self, now: Duration, live: &[NodeId]) {
        self.set_candidates(now, live, live, false);
    }

    /// The nodes that may lead, and all that may be led. A node that `abstains` may not lead itself:
    /// it gives the lead up, and follows whoever claims it.
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
            // Whoever is new here does not know; to tell all, each time one comes, would be a storm.
            let new: Vec<NodeId> = self.audience.difference(&before).copied().collect();
            let message = Message::Coordinator { term: self.term };
            new.into_iter().for_each(|to| self.send(to, message));
        }
        self.report();
    }

    /// A message from a node, as its certificate names it. Anything may come twice or too late.
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
                // Who follows a leader need not ask again: the leader answers for itself, and if it is
                // dead, the next view says so. Else each question would raise as many as there are
                // nodes.
                if self.phase == Phase::Settled && self.leader.is_none() {
                    self.elect(now);
                }
            }
            // Asked by a node that ought to lead us: its view is not ours yet.
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

    /// The next thing to do. Drain it after every call of any other method.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// Who leads, and in which term; `None` while there is an election.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, u64)> {
        self.leader.map(|leader| (leader, self.term))
    }

    /// Whether this node leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader == Some(self.me)
    }

    /// Repeats the claim, if this node leads: there is more to say with it.
    pub fn repeat(&mut self, now: Duration) {
        if self.leads() {
            self.claim(now, self.term);
        }
    }

    fn answered(&mut self, now: Duration, from: NodeId, term: u64) {
        let behind = term > self.term;
        self.learn(term);
        if self.leads() && from > self.me {
            // We led only because we had not heard of it.
            self.elect(now);
        } else if self.leads() && behind {
            // Someone has seen a later claim than ours, maybe our own before a restart.
            self.counter(now, term + 1);
        } else if from > self.me && matches!(self.phase, Phase::Asking { .. }) {
            self.phase = Phase::Promised;
            self.deadline = Some(now + CLAIM_TIMEOUT);
        }
    }

    fn claimed(&mut self, now: Duration, from: NodeId, term: u64) {
        if from < self.me || !self.live.contains(&from) {
            // The lead is not its to take. The term is ours to learn.
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

    /// Takes note of a term. A leader keeps its own until it claims a new one.
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

    /// Claims the lead against somebody who does not know of it, now or a little later.
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
