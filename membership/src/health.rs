//! Reports of health: the nodes that say they are ill, and the nodes that can't reach others.
//!
//! Owns the reports of all members. A node with something to report sends it to every member it can
//! reach, once a second and on each change; a report that is not repeated expires. Reports carry no
//! generation and touch no disk, so that a node whose disk hangs can send them. Only
//! [`Membership`](crate::Membership) calls it, and proves each sender by its certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::health::{Ill, Illness};
use serde::{Deserialize, Serialize};

use crate::{Hysteresis, MemberState, View};

/// How often a report is repeated.
const REPEAT: Duration = Duration::from_secs(1);
/// A report expires after this long without a repetition.
const EXPIRES: Duration = Duration::from_secs(5);
/// How many times an empty report is sent, since datagrams get lost.
const FAREWELLS: u8 = 3;
/// How long a cause has lasted when this node's checks report it.
const JUDGED_AFTER: Duration = Duration::from_secs(2);
/// Most nodes in one report, which then fits a datagram however long their names are.
const NAMED: usize = 32;

/// The report of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What is wrong with the node itself.
    ill: Option<Ill>,
    /// Members to which it has no working data link.
    unreached: Vec<NodeId>,
}

impl Report {
    pub(crate) fn is_sensible(&self) -> bool {
        self.unreached.len() <= NAMED
    }

    fn is_empty(&self) -> bool {
        self.ill.is_none() && self.unreached.is_empty()
    }
}

/// What a node knows about the health of the members.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// For each cause, what this node's own check saw last, and the judgement that follows.
    causes: BTreeMap<Illness, (bool, Hysteresis)>,
    unreached: BTreeSet<NodeId>,
    heard: BTreeMap<NodeId, (Report, Duration)>,
    /// When this node's report is due; `None` while there is nothing to report.
    due: Option<Duration>,
    farewells: u8,
}

impl Reports {
    /// Takes in what this node's own check for one cause sees at `now`.
    pub(crate) fn set_ill(&mut self, now: Duration, illness: Illness, is_bad: bool) {
        self.causes.entry(illness).or_default().0 = is_bad;
        self.judge(now);
    }

    fn judge(&mut self, now: Duration) {
        let before = self.ill(now).map(|ill| ill.illness);
        for (is_bad, judged) in self.causes.values_mut() {
            judged.update(now, *is_bad);
        }
        if self.ill(now).map(|ill| ill.illness) != before {
            self.due = Some(now);
        }
    }

    /// Sets the members to which this node has no working data link.
    pub(crate) fn set_unreached(&mut self, now: Duration, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes: BTreeSet<_> = nodes.into_iter().take(NAMED).collect();
        if self.unreached != nodes {
            self.unreached = nodes;
            self.due = Some(now);
        }
    }

    /// This node's illness; `None` if it is well.
    pub(crate) fn ill(&self, now: Duration) -> Option<Ill> {
        self.causes.iter().find_map(|(illness, (_, judged))| {
            let for_s =
                (now + JUDGED_AFTER - judged.bad_since()?).as_secs().try_into().unwrap_or(u16::MAX);
            Some(Ill { illness: *illness, for_s })
        })
    }

    /// This node's own report.
    fn own(&self, now: Duration) -> Report {
        Report { ill: self.ill(now), unreached: self.unreached.iter().copied().collect() }
    }

    /// Whether no node, this one included, has anything to report.
    pub(crate) fn are_quiet(&self) -> bool {
        let well = self.causes.values().all(|(_, judged)| !judged.is_bad());
        well && self.unreached.is_empty() && self.heard.is_empty()
    }

    /// Takes in a member's report.
    pub(crate) fn hear(&mut self, now: Duration, from: NodeId, report: Report) {
        if report.is_empty() {
            self.heard.remove(&from);
        } else {
            self.heard.insert(from, (report, now));
        }
    }

    /// This node's report, if one is due.
    pub(crate) fn tick(&mut self, now: Duration) -> Option<Report> {
        self.heard.retain(|_, (_, at)| now < *at + EXPIRES);
        self.judge(now);
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        let report = self.own(now);
        self.farewells =
            if report.is_empty() { self.farewells.saturating_sub(1) } else { FAREWELLS };
        self.due = (self.farewells > 0).then_some(now + REPEAT);
        Some(report)
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let expiry = self.heard.values().map(|(_, at)| *at + EXPIRES).min();
        [self.due, expiry].into_iter().flatten().min()
    }

    /// Adds the reported illnesses and missing links to a view.
    pub(crate) fn overlay(&self, now: Duration, me: NodeId, view: &mut View) {
        let mine = self.own(now);
        let heard = self.heard.iter().map(|(node, (report, _))| (*node, report));
        let reports: Vec<_> = heard.chain([(me, &mine)]).collect();
        for member in &mut view.members {
            let id = member.identity.id;
            if member.state != MemberState::Alive {
                continue;
            }
            let own = reports.iter().find(|(node, _)| *node == id);
            if let Some(ill) = own.and_then(|(_, report)| report.ill) {
                member.state = MemberState::Ill(ill);
            }
            let by = reports.iter().filter(|(_, report)| report.unreached.contains(&id));
            let by: Vec<_> = by.map(|(node, _)| *node).collect();
            if !by.is_empty() {
                view.unreached.insert(id, by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Member};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn node(number: usize) -> NodeId {
        format!("node-{number}").parse().unwrap()
    }

    fn view() -> View {
        let member = |number| Member {
            identity: Identity::addressee(node(number), "10.0.0.1:1".parse().unwrap()),
            state: MemberState::Alive,
        };
        View { members: (1..=3).map(member).collect(), ..View::default() }
    }

    fn shown(reports: &Reports, now: Duration) -> View {
        let mut shown = view();
        reports.overlay(now, node(1), &mut shown);
        shown
    }

    #[test]
    fn an_ill_node_says_so_again_and_again_and_that_it_is_well() {
        let mut reports = Reports::default();
        assert_eq!(reports.next_deadline(), None);
        reports.set_ill(s(1), Illness::Disk, true);
        assert_eq!(reports.next_deadline(), Some(s(1)));
        let said = reports.tick(s(1)).unwrap();
        assert_eq!(said.ill, Some(Ill { illness: Illness::Disk, for_s: 2 }));
        assert_eq!(reports.tick(s(1)), None);
        assert_eq!(reports.tick(s(2)).unwrap().ill.unwrap().for_s, 3);
        assert_eq!(shown(&reports, s(2)).live(), [node(2), node(3)]);
        reports.set_ill(s(3), Illness::Disk, false);
        assert_eq!(shown(&reports, s(3)).live().len(), 2, "not well for long enough");
        reports.tick(s(6));
        assert_eq!(shown(&reports, s(6)).live().len(), 3);
        let mut farewells = 1;
        while let Some(at) = reports.next_deadline() {
            let said = reports.tick(at).unwrap();
            assert!(said.is_empty());
            farewells += 1;
        }
        assert_eq!(farewells, FAREWELLS);
    }

    #[test]
    fn a_report_of_another_node_counts_until_it_expires() {
        let mut reports = Reports::default();
        let ill = Some(Ill { illness: Illness::Loop, for_s: 2 });
        reports.hear(s(1), node(2), Report { ill, unreached: vec![node(3)] });
        let seen = shown(&reports, s(1));
        assert_eq!(seen.live(), [node(1), node(3)]);
        assert_eq!(seen.reachable().len(), 3, "it answers all the same");
        assert_eq!(seen.unreached[&node(3)], [node(2)]);
        assert_eq!(reports.next_deadline(), Some(s(6)));
        reports.tick(s(6));
        assert_eq!(shown(&reports, s(6)), view());
        reports.hear(s(7), node(2), Report { ill, unreached: Vec::new() });
        reports.hear(s(8), node(2), Report::default());
        assert_eq!(shown(&reports, s(8)), view());
    }
}
