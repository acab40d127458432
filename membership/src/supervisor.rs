//! Bringing back nodes that are down. Every node has a supervisor; the elected one's acts.
//!
//! Sans-IO: it is told the view, whether this node leads, and what a *reviver* (process, container
//! engine) found and did; it says what to look at and whom to start. Nothing is done on the word of
//! the failure detector alone: before a node is touched the reviver inspects it, and [`decide`]
//! judges what it found.
//!
//! Two supervisors may act at once while the network is cut. Both inspect before they start, and
//! starting what runs already does nothing, so they do no harm.

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

/// How long a member that was never heard of since our start has to speak up: after a start of the
/// whole cluster the others are starting, too.
const UNHEARD: Duration = Duration::from_secs(3);
/// How long a node that was started has to join before it is looked at again.
const JOIN: Duration = Duration::from_secs(3);
/// Pause after the first start that failed; doubled with each further one, up to [`START_AGAIN_MOST`].
const START_AGAIN: Duration = Duration::from_secs(1);
/// Longest pause between attempts to start a node.
const START_AGAIN_MOST: Duration = Duration::from_secs(30);
/// How often a node that is left alone is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a health check must fail before its node is called hung.
const HUNG: Duration = Duration::from_secs(3);
/// How long a node that answers may be ill, by its own word, before it is restarted.
const ILL_FOR: Duration = Duration::from_secs(30);

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Have the reviver look; report with [`Supervisor::inspected`].
    Inspect(NodeId),
    /// Have the reviver start it, or with `kill` end it first; report with [`Supervisor::revived`].
    Revive {
        /// Whom.
        node: NodeId,
        /// Whether it runs and has to be ended.
        kill: bool,
    },
    /// Keep this as an event.
    Record(Happening),
    /// Tell the others what is known of nodes that had to be revived, for who leads next.
    Tell(Vec<Trouble>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do.
    Idle,
    /// To be inspected at this time.
    Due(Duration),
    /// The reviver is at it.
    Busy,
}

#[derive(Debug)]
struct Target {
    /// In the view: neither unknown nor gone for good.
    member: bool,
    down: bool,
    phase: Phase,
    ill_since: Option<Duration>,
    /// Since when it says itself that it is ill.
    says_ill_since: Option<Duration>,
    budget: Budget,
    given_up: bool,
    /// What was said last about leaving it alone.
    told: Option<Reason>,
    /// Attempts in a row that did not even start it: a full disk, a missing program.
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
    /// What the others were told: of whom, how many revivals, whether it was given up.
    told: Vec<(NodeId, u8, bool)>,
    outbox: VecDeque<Step>,
}

impl Supervisor {
    /// A supervisor that does not lead and knows nobody.
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

    /// The membership has changed.
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

    /// This node was elected, or no longer is; or there is something new about nodes that had to be
    /// revived by others.
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

    /// The reviver has seen a node end. It is looked at at once, whatever the detector thinks.
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

    /// What the reviver found.
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
                // It gets as long again.
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

    /// The reviver has started a node, or could not.
    ///
    /// A node that could not be started has not crashed: the attempt does not count, and there are
    /// more, further and further apart.
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

    /// Looks at whom it is time to look at. Call it at [`Self::next_deadline`].
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

    /// The next thing to do. Drain it after every call of any other method.
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

    /// It answers, or has left.
    fn is_well(&mut self) {
        // What is under way ends by itself.
        if self.phase != Phase::Busy {
            self.phase = Phase::Idle;
        }
        (self.given_up, self.ill_since, self.told) = (false, None, None);
        self.failed_starts = 0;
    }
}
