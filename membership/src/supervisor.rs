//! Brings back nodes that are down. Every node has a supervisor; only the elected node's acts.
//!
//! Owns the number of revivals of each node and the time of its next inspection. Before it touches
//! a node, a *reviver* (process, container engine) inspects the node, and [`decide`] judges what
//! was found: a report of the failure detector alone is not enough. Sans-IO: the daemon hands in
//! the view, whether this node leads, and what the reviver found and did, and carries out each
//! [`Step`].
//!
//! Two supervisors may act at once while the network is cut. That does no harm: both inspect a node
//! before they start it, and to start a running node does nothing.

mod budget;
mod decision;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::event::Happening;

use crate::{MemberState, Trouble, View};
use budget::Budget;
pub use decision::{Allowance, Decision, Evidence, Facts, Reason, decide};

/// How long a member that has sent nothing since this node started has to answer before it is
/// inspected: after a start of the whole cluster the other nodes are starting, too.
const UNHEARD: Duration = Duration::from_secs(3);
/// How long a started node has to join before it is inspected again.
const JOIN: Duration = Duration::from_secs(3);
/// Pause after the first failed start; doubled with each further one, up to [`START_AGAIN_MOST`].
const START_AGAIN: Duration = Duration::from_secs(1);
/// Longest pause between attempts to start a node.
const START_AGAIN_MOST: Duration = Duration::from_secs(30);
/// How often a node that is left alone is inspected.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a health check must fail before its node is called hung.
const HUNG: Duration = Duration::from_secs(3);
/// How long a node that answers may report that it is ill before it is restarted.
const ILL_FOR: Duration = Duration::from_secs(30);

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let the reviver inspect the node; report with [`Supervisor::inspected`].
    Inspect(NodeId),
    /// Let the reviver start the node, after ending it if `kill`; report with
    /// [`Supervisor::revived`].
    Revive {
        /// The node.
        node: NodeId,
        /// Whether the node runs and has to be ended first.
        kill: bool,
    },
    /// Record this event.
    Record(Happening),
    /// Send the other members what is known of revived nodes, for the next supervisor.
    Tell(Vec<Trouble>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do.
    Idle,
    /// To be inspected at this time.
    Due(Duration),
    /// The reviver is inspecting or starting it.
    Busy,
}

#[derive(Debug)]
struct Target {
    /// The view has it as a member.
    member: bool,
    down: bool,
    phase: Phase,
    ill_since: Option<Duration>,
    /// Since when it reports that it is ill.
    says_ill_since: Option<Duration>,
    budget: Budget,
    given_up: bool,
    /// The reason recorded last for leaving it alone.
    told: Option<Reason>,
    /// Starts in a row that failed, for example because of a full disk or a missing program.
    failed_starts: u32,
}

/// One node's supervisor.
#[derive(Debug)]
pub struct Supervisor {
    me: NodeId,
    /// Name of the reviver, for the events.
    reviver: &'static str,
    leads: bool,
    majority: bool,
    targets: BTreeMap<NodeId, Target>,
    /// The troubles sent last: the node, its number of revivals, whether it was given up.
    told: Vec<(NodeId, u8, bool)>,
    outbox: VecDeque<Step>,
}

impl Supervisor {
    /// A supervisor that does not lead and knows no node.
    #[must_use]
    pub fn new(me: NodeId, reviver: &'static str) -> Self {
        Self {
            me,
            reviver,
            leads: false,
            majority: false,
            targets: BTreeMap::new(),
            told: Vec::new(),
            outbox: VecDeque::new(),
        }
    }

    /// Takes in a changed view.
    pub fn set_view(&mut self, now: Duration, view: &View) {
        self.majority = view.has_majority();
        let mut named = BTreeSet::new();
        for member in &view.members {
            let id = member.identity.id;
            if id == self.me {
                continue;
            }
            named.insert(id);
            let target = self.targets.entry(id).or_insert_with(Target::new);
            target.member = true;
            target.down = member.state == MemberState::Down;
            if !matches!(member.state, MemberState::Ill(_)) {
                target.says_ill_since = None;
            } else if target.says_ill_since.is_none() {
                target.says_ill_since = Some(now);
            }
            if let Some(since) = target.says_ill_since {
                if target.phase == Phase::Idle {
                    target.phase = Phase::Due(since + ILL_FOR);
                }
            } else if !target.down {
                target.is_well();
            } else if target.phase == Phase::Idle {
                let heard = member.identity.generation > 0;
                target.phase = Phase::Due(if heard { now } else { now + UNHEARD });
            }
        }
        for (_, gone) in self.targets.iter_mut().filter(|(id, _)| !named.contains(id)) {
            (gone.member, gone.down) = (false, false);
            gone.is_well();
        }
        self.targets.retain(|id, target| {
            named.contains(id) || target.phase == Phase::Busy || !target.budget.is_fresh(now)
        });
        self.settle(now);
    }

    /// Takes in whether this node leads, and what other supervisors know of revived nodes.
    pub fn set_leading(&mut self, now: Duration, leads: bool, troubles: &[Trouble]) {
        for trouble in troubles {
            if let Some(target) = self.targets.get_mut(&trouble.node) {
                let counts_for = Duration::from_secs(trouble.counts_for_s.into());
                target.budget.adopt(now, trouble.revivals.into(), counts_for);
                target.given_up |= target.down && trouble.given_up;
            }
        }
        self.leads = leads;
        self.settle(now);
    }

    /// The reviver has seen a node end. A supervisor that leads inspects the node at once, whatever
    /// the view says.
    pub fn ended(&mut self, now: Duration, node: NodeId) {
        if self.leads
            && let Some(target) = self.targets.get_mut(&node)
            && target.member
            && target.phase != Phase::Busy
        {
            target.phase = Phase::Due(now);
        }
        self.settle(now);
    }

    /// Takes in what the reviver found, and decides what to do.
    pub fn inspected(&mut self, now: Duration, node: NodeId, evidence: Evidence) {
        let (leads, majority, reviver) = (self.leads, self.majority, self.reviver);
        let Some(target) = self.targets.get_mut(&node) else { return };
        let look_again = now + LOOK_AGAIN;
        let watched = target.down || target.says_ill_since.is_some();
        target.phase = if watched { Phase::Due(look_again) } else { Phase::Idle };
        if !leads || !target.member || target.given_up {
            return;
        }
        if evidence != Evidence::Ill {
            target.ill_since = None;
        } else if target.ill_since.is_none() {
            target.ill_since = Some(now);
        }
        let facts = Facts {
            evidence,
            hung: target.ill_since.is_some_and(|since| since + HUNG <= now),
            reachable: !target.down,
            ill_for_long: target.says_ill_since.is_some_and(|since| since + ILL_FOR <= now),
            majority,
            allowance: target.budget.allowance(now),
        };
        match decide(&facts, look_again) {
            how @ (Decision::Start | Decision::Restart) => {
                let kill = how == Decision::Restart;
                target.phase = Phase::Busy;
                (target.ill_since, target.told) = (None, None);
                // A restarted node has the full time again to become well.
                target.says_ill_since = target.says_ill_since.map(|_| now);
                let attempt = target.budget.spend(now) as u32;
                let reviver = reviver.to_owned();
                let what = Happening::Reviving { node, kill, attempt, reviver };
                self.outbox.extend([Step::Record(what), Step::Revive { node, kill }]);
            }
            Decision::Wait(at) => target.phase = Phase::Due(at),
            Decision::LeaveAlone(reason) => {
                if watched && target.told != Some(reason) {
                    target.told = Some(reason);
                    let reason = reason.to_string();
                    self.outbox.push_back(Step::Record(Happening::LeftAlone { node, reason }));
                }
            }
            Decision::GiveUp => {
                target.given_up = true;
                let attempts = budget::MOST as u32;
                let what = Happening::CrashLooping { node, attempts };
                self.outbox.push_back(Step::Record(what));
            }
        }
        self.settle(now);
    }

    /// Takes in the result of a start.
    ///
    /// A node that could not be started has not crashed: the attempt does not count as a revival,
    /// and is repeated after growing pauses.
    pub fn revived(&mut self, now: Duration, node: NodeId, result: Result<(), String>) {
        let started = result.is_ok();
        let what = match result {
            Ok(()) => Happening::Revived(node),
            Err(reason) => Happening::ReviveFailed { node, reason },
        };
        self.outbox.push_back(Step::Record(what));
        if let Some(target) = self.targets.get_mut(&node) {
            let pause = if started {
                target.failed_starts = 0;
                JOIN
            } else {
                target.budget.refund(now);
                let doubled = 1 << target.failed_starts.min(8);
                target.failed_starts += 1;
                (START_AGAIN * doubled).min(START_AGAIN_MOST)
            };
            target.phase = if target.down { Phase::Due(now + pause) } else { Phase::Idle };
        }
        self.settle(now);
    }

    /// Inspects the nodes that are due. Call it at [`Self::next_deadline`].
    pub fn tick(&mut self, now: Duration) {
        self.settle(now);
    }

    /// When [`Self::tick`] is due; `None` while there is nothing to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = self.targets.values().filter(|target| !target.given_up);
        let due = due.filter_map(|target| match target.phase {
            Phase::Due(at) => Some(at),
            _ => None,
        });
        due.min().filter(|_| self.leads)
    }

    /// The next step. Drain all steps after every call of any other method.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.outbox.pop_front()
    }

    fn settle(&mut self, now: Duration) {
        if !self.leads {
            return;
        }
        for (id, target) in &mut self.targets {
            if matches!(target.phase, Phase::Due(at) if at <= now) && !target.given_up {
                target.phase = Phase::Busy;
                self.outbox.push_back(Step::Inspect(*id));
            }
        }
        let troubles = self.troubles(now);
        let told = troubles.iter().map(|t| (t.node, t.revivals, t.given_up)).collect();
        if self.told != told {
            self.told = told;
            self.outbox.push_back(Step::Tell(troubles));
        }
    }

    fn troubles(&mut self, now: Duration) -> Vec<Trouble> {
        let trouble = |(node, target): (&NodeId, &mut Target)| {
            let (revivals, counts_for) = target.budget.spent(now);
            (revivals > 0 || target.given_up).then_some(Trouble {
                node: *node,
                revivals: revivals as u8,
                counts_for_s: counts_for.as_secs() as u16,
                given_up: target.given_up,
            })
        };
        self.targets.iter_mut().filter_map(trouble).collect()
    }
}

impl Target {
    fn new() -> Self {
        Self {
            member: false,
            down: false,
            phase: Phase::Idle,
            ill_since: None,
            says_ill_since: None,
            budget: Budget::default(),
            given_up: false,
            told: None,
            failed_starts: 0,
        }
    }

    /// The node answers or has left.
    fn is_well(&mut self) {
        // An inspection or start that is under way ends by itself.
        if self.phase != Phase::Busy {
            self.phase = Phase::Idle;
        }
        (self.given_up, self.ill_since, self.told) = (false, None, None);
        self.failed_starts = 0;
    }
}
