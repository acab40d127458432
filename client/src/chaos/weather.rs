//! Random faults: kind, node and time are drawn from a seed. `cortado chaos run` uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::NodeId;
use tokio::time::Instant;

use super::{Chaos, Fault, Kind, Way};
use crate::Error;
use crate::generate::Random;

/// The supervisor starts a node three times within this time.
const BUDGET_WINDOW: Duration = Duration::from_secs(300);
/// How often a node is killed within [`BUDGET_WINDOW`].
const KILLS: usize = 2;
/// How often a node is paused within it. The supervisor may kill a paused node and start it.
const PAUSES: usize = 1;
/// Shortest and longest time to the next fault, in milliseconds.
const PAUSE_MS: (u64, u64) = (500, 5_000);
/// Shortest and longest duration of a fault, in milliseconds.
const LASTS_MS: (u64, u64) = (1_000, 8_000);

/// What faults to draw, and for how long.
#[derive(Clone, Debug)]
pub struct Weather {
    /// How long to make faults.
    pub duration: Duration,
    /// Decides the faults. The same seed gives the same plan, but not the same run, since processes
    /// are not deterministic.
    pub seed: u64,
    /// Kinds of faults.
    pub kinds: Vec<Kind>,
}

/// A fault that was made.
#[derive(Clone, Debug)]
pub struct Act {
    /// Its time since the start.
    pub at: Duration,
    /// The fault.
    pub fault: Fault,
    /// How long it lasts; a kill lasts until the node is started again.
    pub lasts: Duration,
    /// The outcome, if it was not the intended one.
    pub note: Option<String>,
}

impl Weather {
    /// Makes faults until the time is over, then ends all of them and waits until the cluster is
    /// whole. Calls `tell` with each fault. Dropping the future leaves the present faults as they
    /// are.
    ///
    /// # Errors
    /// [`Error::BadInput`] if a node refuses, [`Error::Unreachable`] if the cluster is not whole a
    /// minute after it was healed.
    pub async fn run(&self, chaos: &Chaos, mut tell: impl FnMut(&Act)) -> Result<usize, Error> {
        let plan = Plan::new(self.seed, &self.kinds, chaos.nodes(), self.duration);
        let began = Instant::now();
        let mut paused = BTreeSet::new();
        let mut acts = 0;
        for mut act in plan {
            let due = began + act.at;
            resume(chaos, &mut paused, due).await?;
            tokio::time::sleep_until(due).await;
            match chaos.inflict(&act.fault, act.lasts).await {
                Ok(silent) if silent.is_empty() => {}
                Ok(silent) => {
                    act.note = Some(format!("{} did not answer", NodeId::join(&silent, ", ")));
                }
                // The node was dead already.
                Err(Error::BadInput(reason))
                    if matches!(act.fault, Fault::Kill(_) | Fault::Pause(_)) =>
                {
                    act.note = Some(reason);
                }
                Err(error) => return Err(error),
            }
            if let Fault::Pause(node) = act.fault {
                paused.insert((due + act.lasts, node));
            }
            tell(&act);
            acts += 1;
        }
        let end = began + self.duration;
        resume(chaos, &mut paused, end).await?;
        tokio::time::sleep_until(end).await;
        chaos.heal(&chaos.nodes()).await?;
        chaos.whole().await?;
        Ok(acts)
    }
}

/// Resumes the paused nodes that are due before `until`.
async fn resume(
    chaos: &Chaos,
    paused: &mut BTreeSet<(Instant, NodeId)>,
    until: Instant,
) -> Result<(), Error> {
    while let Some(&(at, node)) = paused.first()
        && at <= until
    {
        tokio::time::sleep_until(at).await;
        paused.pop_first();
        chaos.resume(node)?;
    }
    Ok(())
}

/// Draws the faults.
struct Plan {
    random: Random,
    kinds: Vec<Kind>,
    nodes: Vec<NodeId>,
    at: Duration,
    until: Duration,
    kills: Budget,
    pauses: Budget,
}

impl Plan {
    fn new(seed: u64, kinds: &[Kind], nodes: Vec<NodeId>, until: Duration) -> Self {
        let random = Random::new(seed, "weather");
        let (at, kinds) = (Duration::ZERO, kinds.to_vec());
        let (kills, pauses) = (Budget::of(KILLS), Budget::of(PAUSES));
        Self { random, kinds, nodes, at, until, kills, pauses }
    }

    /// A fault of this kind; `None` if none is possible now.
    fn fault(&mut self, kind: Kind) -> Option<Fault> {
        Some(match kind {
            Kind::Kill => Fault::Kill(self.kills.hit(&mut self.random, &self.nodes, self.at)?),
            Kind::Pause => Fault::Pause(self.pauses.hit(&mut self.random, &self.nodes, self.at)?),
            Kind::Partition => {
                let (mut one, mut other) = (Vec::new(), Vec::new());
                for node in &self.nodes {
                    if self.random.percent(50) { one.push(*node) } else { other.push(*node) }
                }
                if one.is_empty() || other.is_empty() {
                    return None;
                }
                Fault::Partition(vec![one, other])
            }
            Kind::Oneway => {
                let (from, to) = (self.any(), self.any());
                if from == to {
                    return None;
                }
                Fault::Oneway { from, to }
            }
            Kind::Delay => {
                let ms = 20 + self.random.below(280) as u32;
                Fault::Delay { nodes: vec![self.any()], ms }
            }
            Kind::Loss => {
                let percent = 1 + self.random.below(30) as u8;
                Fault::Loss { nodes: vec![self.any()], percent }
            }
            Kind::DiskFull => Fault::DiskFull(vec![self.any()]),
            Kind::DiskHang => Fault::DiskHang(vec![self.any()]),
            Kind::LoopStall => Fault::LoopStall(vec![self.any()]),
            Kind::DataCut => {
                let node = self.any();
                let others = self.nodes.iter().copied().filter(|other| *other != node).collect();
                let ways = [None, Some(Way::In), Some(Way::Out)];
                let way = ways[self.random.below(3) as usize];
                Fault::DataCut { node, others, way }
            }
        })
    }

    fn any(&mut self) -> NodeId {
        let node = self.random.below(self.nodes.len() as u64) as usize;
        self.nodes[node]
    }

    fn between(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(least + self.random.below(most - least + 1))
    }
}

/// Limits how often each node is hit within [`BUDGET_WINDOW`].
struct Budget {
    most: usize,
    /// For each node, the times at which it was hit lately.
    hits: BTreeMap<NodeId, Vec<Duration>>,
}

impl Budget {
    fn of(most: usize) -> Self {
        Self { most, hits: BTreeMap::new() }
    }

    /// Hits one of the nodes that may be hit now; `None` if there is none.
    fn hit(&mut self, random: &mut Random, nodes: &[NodeId], now: Duration) -> Option<NodeId> {
        self.hits.values_mut().for_each(|times| times.retain(|at| *at + BUDGET_WINDOW > now));
        let spare = |node: &&NodeId| self.hits.get(node).is_none_or(|hits| hits.len() < self.most);
        let spare: Vec<_> = nodes.iter().filter(spare).copied().collect();
        let node = *spare.get(random.below(spare.len().max(1) as u64) as usize)?;
        self.hits.entry(node).or_default().push(now);
        Some(node)
    }
}

impl Iterator for Plan {
    type Item = Act;

    fn next(&mut self) -> Option<Act> {
        while self.at < self.until {
            let (at, lasts) = (self.at, self.between(LASTS_MS));
            let kind = self.random.below(self.kinds.len() as u64) as usize;
            let fault = self.fault(self.kinds[kind]);
            self.at = at + self.between(PAUSE_MS);
            if let Some(fault) = fault {
                return Some(Act { at, fault, lasts, note: None });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(seed: u64, until: Duration) -> Vec<Act> {
        let nodes = (1..=5).map(|n| format!("node-{n}").parse().unwrap()).collect();
        Plan::new(seed, &Kind::ALL, nodes, until).collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        let text = |seed| format!("{:?}", acts(seed, Duration::from_secs(60)));
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn every_kind_happens_and_nobody_is_hit_too_often() {
        let acts = acts(3, Duration::from_secs(3_600));
        for kind in Kind::ALL {
            assert!(acts.iter().any(|act| act.fault.kind() == kind), "{kind:?}");
        }
        let mut hits: BTreeMap<NodeId, Vec<Duration>> = BTreeMap::new();
        for act in &acts {
            if let Fault::Kill(node) | Fault::Pause(node) = act.fault {
                hits.entry(node).or_default().push(act.at);
            }
        }
        assert_eq!(hits.len(), 5);
        let budget = KILLS + PAUSES;
        for window in hits.values().flat_map(|times| times.windows(budget + 1)) {
            assert!(window[budget] - window[0] >= BUDGET_WINDOW);
        }
    }
}
