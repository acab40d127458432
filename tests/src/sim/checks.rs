//! What a run is held against: the model's answer, the copies, the views.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::Duration;

use cortado_core::Config;
use cortado_engine::Durability;
use cortado_membership::ring;
use cortado_protocol::Coverage;

use super::actor::Actor;
use super::dials::Outcome;
use super::event::Event;
use super::world::World;

/// How long owners may take to hold what they should once everything has healed: a sweep and some.
const SETTLE: Duration = Duration::from_secs(45);
/// How long after its time to live a job may be there when nothing is wrong: proposals that were given
/// up rest for a while.
const EXPIRE: Duration = Duration::from_secs(60);

impl World {
    /// When everything has healed, every owner of a slot comes to hold all that any node holds of
    /// it (I3), as long as the job lives.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.events.retain(|_, event| !matches!(event, Event::Fault(_) | Event::CrashAgain { .. }));
        self.net.cut.clear();
        self.net.clogged.clear();
        self.net.cut_data.clear();
        self.hung.clear();
        (0..self.nodes.len()).for_each(|node| self.judge_disk(node));
        for node in &self.nodes {
            node.storage.set_capacity(None);
            node.storage.fail_syncs(0);
        }
        self.wait_until_none(SETTLE, |world| {
            let open = world.missing_copies().or_else(|| world.different_views());
            open.or_else(|| world.job_left(Actor::has_deleted))
        })?;
        self.expire()
    }

    /// When everybody is there and nothing is asked any more, every job goes, everywhere.
    fn expire(&mut self) -> Result<(), String> {
        let Some(ttl) = self.dials.job_ttl else { return Ok(()) };
        self.wait_until_none(ttl + EXPIRE, |world| world.job_left(|_| true))
    }

    /// Goes on until nothing is open any more, and looks twice a second.
    fn wait_until_none(
        &mut self,
        limit: Duration,
        open: impl Fn(&Self) -> Option<String>,
    ) -> Result<(), String> {
        let until = self.now + limit;
        let mut look_at = self.now;
        loop {
            self.step()?;
            if self.now < look_at {
                continue;
            }
            look_at = self.now + Duration::from_millis(500);
            match open(self) {
                None => return Ok(()),
                Some(open) if self.now > until => return Err(open),
                Some(_) => {}
            }
        }
    }

    /// A node that still has records of a job of these clients, in a sentence.
    fn job_left(&self, of: impl Fn(&Actor) -> bool) -> Option<String> {
        self.nodes.iter().find_map(|node| {
            let core = &node.process.as_ref()?.core;
            let clients = self.clients.iter().filter(|client| of(client));
            let left = clients.map(Actor::job).find(|job| !core.held(*job).is_empty())?;
            Some(format!("{} keeps {left} for ever: {}", node.id, core.describe_expiry(left)))
        })
    }

    /// A node that does not run, or does not see all others, in a sentence.
    fn different_views(&self) -> Option<String> {
        let all: BTreeSet<_> = self.nodes.iter().map(|node| node.id).collect();
        self.nodes.iter().find_map(|node| match &node.process {
            None => Some(format!("{} never came back", node.id)),
            Some(process) if process.live.iter().copied().collect::<BTreeSet<_>>() != all => {
                Some(format!("{} sees only {:?}", node.id, process.live))
            }
            Some(_) => None,
        })
    }

    /// A copy that an owner lacks, in a sentence.
    fn missing_copies(&self) -> Option<String> {
        let live: Vec<_> =
            self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let copies = usize::from(self.config.replicas);
        for client in self.clients.iter().filter(|client| client.is_done()) {
            let job = client.job();
            let cores = self.nodes.iter().filter_map(|node| Some(&node.process.as_ref()?.core));
            if cores.into_iter().any(|core| core.is_forgotten(job)) {
                continue;
            }
            let mut held = BTreeMap::new();
            for node in &self.nodes {
                let Some(process) = &node.process else { continue };
                for part in process.core.held(job) {
                    if part.edge.as_table().is_some() {
                        return Some(format!("{} keeps batches of {job}, which is done", node.id));
                    }
                    for slot in part.slots.iter() {
                        held.insert((slot, part.edge, node.id), part.coverage.clone());
                    }
                }
            }
            let mut all: BTreeMap<_, Coverage> = BTreeMap::new();
            for ((slot, edge, _), coverage) in &held {
                all.entry((*slot, *edge)).or_default().union(coverage);
            }
            for ((slot, edge), coverage) in all {
                let owners = ring::owners(ring::slot_key(job, slot), &live);
                for owner in owners.into_iter().take(copies) {
                    if held.get(&(slot, edge, owner)).is_none_or(|own| *own != coverage) {
                        return Some(format!("{owner} lacks some of {edge:?}, {slot:?} of {job}"));
                    }
                }
            }
        }
        None
    }

    /// Who stands where, for a failing run's report.
    pub(super) fn describe(&mut self) -> String {
        let mut text = String::new();
        for client in &self.clients {
            let job = client.job();
            text += &format!("\nclient of {job}: {}", client.describe());
            for node in &mut self.nodes {
                if let Some(process) = node.process.as_mut().filter(|_| !client.is_over()) {
                    text += &format!("\n  {}: {}", node.id, process.core.describe(job));
                }
            }
        }
        text
    }

    pub(super) fn compare(self) -> Result<Outcome, String> {
        let Config { replicas, min_copies, .. } = self.config;
        for (number, client) in self.clients.iter().enumerate() {
            let compared = client.compare(Durability { replicas, min_copies });
            compared.map_err(|differs| format!("client {number}: {differs}"))?;
            if let Actor::Owner(owner) = client {
                owner.rows().try_for_each(|row| self.webhook.check("rows", &row))?;
                self.clients.iter().try_for_each(|of| of.compare_sealed(owner))?;
            }
        }
        Ok(Outcome {
            trace: self.trace.finish(),
            took: self.now,
            seen: self.seen,
            acknowledged: self.clients.iter().map(|client| client.acknowledged()).sum(),
            frames: self.frames,
        })
    }
}
