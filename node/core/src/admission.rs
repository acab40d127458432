//! Admission: at most a configured number of jobs hold a place and run; the others wait.
//!
//! The first owner of a constant key keeps the [`Queue`] (the queue keeper). Coordinators report to
//! it once a second, and on every change, which of their jobs hold a place or want one. A job that
//! has ended, or whose client has sent nothing for `upload_idle`, is not reported and so holds no
//! place. The next place goes to the client that holds the fewest, and among its jobs to the
//! oldest.
//!
//! The queue is soft state: a new keeper has all of it after one round of reports. Two keepers
//! during a cut may let too many jobs run; nothing else depends on the limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::peer::{PeerMessage, PlaceWish};
use cortado_protocol::{JobId, NodeId};

use crate::facts::Facts;
use crate::outbox::Outbox;

/// Time without a report after which the queue drops a job.
const FORGET_AFTER: Duration = Duration::from_secs(4);
/// How long a new keeper waits for the reports of all members before it gives places away.
const LISTEN_FOR: Duration = Duration::from_millis(1500);

/// Places of jobs (0 runs, 1 is next), for each coordinator to which they have to be sent.
type Places = BTreeMap<NodeId, Vec<(JobId, u32)>>;

struct Entry {
    coordinator: NodeId,
    client: u64,
    submitted_ms: u64,
    arrival: u64,
    running: bool,
    /// The place that the coordinator was sent last.
    place: Option<u32>,
    seen: Duration,
}

/// The queue, on the queue keeper.
#[derive(Default)]
pub(crate) struct Queue {
    /// The queue keeper.
    keeper: Option<NodeId>,
    entries: BTreeMap<JobId, Entry>,
    arrivals: u64,
    /// Until then, this new keeper gives no places away.
    listens_until: Option<Duration>,
    /// Time of each node's last report.
    heard: BTreeMap<NodeId, Duration>,
}

impl Queue {
    /// The members changed. Returns whether another node keeps the queue now.
    pub(crate) fn after_change(&mut self, facts: &Facts) -> bool {
        let keeper = facts.queue_keeper();
        if self.keeper.replace(keeper) == Some(keeper) {
            return false;
        }
        // If this node's log has no job, no job can be running.
        let listen = keeper == facts.config.node && facts.ledger.jobs().next().is_some();
        self.keeper_changed(facts.now, listen);
        true
    }

    /// A coordinator reports its jobs.
    pub(crate) fn on_admit(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        jobs: &[PlaceWish],
    ) {
        self.report(facts.now, from, jobs);
        self.send_places(facts, out);
    }

    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        if self.listens_until.is_some_and(|until| facts.now >= until) {
            self.send_places(facts, out);
        }
    }

    fn send_places(&mut self, facts: &Facts, out: &mut Outbox) {
        let limit = facts.config.max_running_jobs as usize;
        for (coordinator, jobs) in self.assign(facts.now, &facts.members.live, limit) {
            out.send(coordinator, PeerMessage::Admitted { jobs });
        }
    }

    /// This node becomes the queue keeper, or stops being it. Recent reports are kept: they come
    /// from coordinators that saw the change earlier.
    fn keeper_changed(&mut self, now: Duration, listen: bool) {
        self.entries.retain(|_, entry| now < entry.seen + LISTEN_FOR);
        self.listens_until = listen.then_some(now + LISTEN_FOR);
    }

    /// Takes a coordinator's report. Jobs that it reported before and leaves out now lose their
    /// places.
    fn report(&mut self, now: Duration, from: NodeId, wishes: &[PlaceWish]) {
        self.heard.insert(from, now);
        let named: BTreeSet<_> = wishes.iter().map(|wish| wish.job).collect();
        self.entries.retain(|job, entry| {
            let current = entry.coordinator != from || named.contains(job);
            current && now < entry.seen + FORGET_AFTER
        });
        for wish in wishes {
            self.arrivals += 1;
            let entry = self.entries.entry(wish.job).or_insert(Entry {
                coordinator: from,
                client: wish.client,
                submitted_ms: wish.submitted_ms,
                arrival: self.arrivals,
                running: wish.running,
                place: None,
                seen: now,
            });
            // Each report is answered with all places of its jobs.
            entry.place = None;
            entry.coordinator = from;
            entry.client = wish.client;
            entry.seen = now;
            entry.running |= wish.running;
        }
    }

    /// Gives free places away, and returns the places to be sent.
    fn assign(&mut self, now: Duration, live: &[NodeId], limit: usize) -> Places {
        let listening = self.listens(now, live);
        let mut held: BTreeMap<u64, usize> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, BTreeSet<(u64, u64, JobId)>> = BTreeMap::new();
        for (job, entry) in &self.entries {
            if entry.running {
                *held.entry(entry.client).or_default() += 1;
            } else {
                let order = (entry.submitted_ms, entry.arrival, *job);
                waiting.entry(entry.client).or_default().insert(order);
            }
        }
        let mut running: usize = held.values().sum();
        // The first job of each client, ordered by the number of places that its client holds.
        let held = |client| held.get(&client).copied().unwrap_or_default();
        let first = |jobs: &mut BTreeSet<_>| jobs.pop_first();
        let firsts = waiting.iter_mut().filter_map(|(client, jobs)| {
            first(jobs)
                .map(|(submitted, arrival, job)| (held(*client), submitted, arrival, job, *client))
        });
        let mut next: BTreeSet<_> = firsts.collect();
        let mut position = 0;
        let mut places = Places::new();
        while let Some((held, _, _, job, client)) = next.pop_first() {
            if let Some((submitted, arrival, job)) = waiting.get_mut(&client).and_then(first) {
                next.insert((held + 1, submitted, arrival, job, client));
            }
            let entry = self.entries.get_mut(&job).expect("collected from the same map");
            let place = if running < limit && !listening {
                entry.running = true;
                running += 1;
                0
            } else {
                position += 1;
                position
            };
            if entry.place.replace(place) != Some(place) {
                places.entry(entry.coordinator).or_default().push((job, place));
            }
        }
        for (job, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.running) {
            if entry.place.replace(0) != Some(0) {
                places.entry(entry.coordinator).or_default().push((*job, 0));
            }
        }
        places
    }

    /// Whether a member may still coordinate jobs that it has not reported to this node.
    fn listens(&mut self, now: Duration, live: &[NodeId]) -> bool {
        let recent = |node| self.heard.get(node).is_some_and(|at| now < *at + LISTEN_FOR);
        let all = live.iter().all(recent);
        self.listens_until = self.listens_until.filter(|until| now < *until && !all);
        self.listens_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn wish(job: u128, client: u64, running: bool) -> PlaceWish {
        PlaceWish { job: JobId(job), client, submitted_ms: job as u64, running }
    }

    /// Jobs with a place, and the others in the order in which they get one.
    fn order(queue: &Queue) -> (Vec<u128>, Vec<u128>) {
        let running = queue.entries.iter().filter(|(_, entry)| entry.running);
        let mut waiting: Vec<_> = queue.entries.iter().filter(|(_, e)| !e.running).collect();
        waiting.sort_by_key(|(_, entry)| entry.place);
        let ids = |(job, _): (&JobId, &Entry)| job.0;
        (running.map(ids).collect(), waiting.into_iter().map(ids).collect())
    }

    #[test]
    fn places_go_round_between_clients() {
        let mut queue = Queue::default();
        let (now, a) = (Duration::from_secs(1), node("a"));
        let mut wishes: Vec<_> = (1..=6).map(|job| wish(job, 1, false)).collect();
        queue.report(now, a, &wishes);
        queue.assign(now, &[a], 2);
        assert_eq!(order(&queue), (vec![1, 2], vec![3, 4, 5, 6]));
        wishes.extend([wish(7, 2, false), wish(8, 2, false), wish(9, 3, false)]);
        queue.report(now, a, &wishes);
        queue.assign(now, &[a], 2);
        assert_eq!(order(&queue), (vec![1, 2], vec![7, 9, 8, 3, 4, 5, 6]));
        // A job ends: its place goes to the client that has none.
        queue.report(now, a, &wishes[1..]);
        let places = queue.assign(now, &[a], 2);
        assert_eq!(order(&queue).0, [2, 7]);
        assert!(places[&a].contains(&(JobId(7), 0)));
    }

    #[test]
    fn a_job_that_is_not_reported_any_more_gives_its_place_to_the_next() {
        let mut queue = Queue::default();
        let (now, a, b) = (Duration::from_secs(1), node("a"), node("b"));
        queue.report(now, a, &[wish(1, 1, false)]);
        queue.report(now, b, &[wish(2, 1, false)]);
        let places = queue.assign(now, &[a, b], 1);
        assert_eq!((&places[&a], &places[&b]), (&vec![(JobId(1), 0)], &vec![(JobId(2), 1)]));
        queue.report(now, a, &[]);
        let places = queue.assign(now, &[a, b], 1);
        assert_eq!(places, Places::from([(b, vec![(JobId(2), 0)])]));
        // A coordinator that sent no report, and whose places did not change, gets no message.
        queue.report(now, a, &[wish(1, 1, false)]);
        let places = queue.assign(now, &[a, b], 1);
        assert_eq!(places, Places::from([(a, vec![(JobId(1), 1)])]));
    }

    #[test]
    fn a_new_keeper_gives_nothing_away_before_every_member_has_reported() {
        let mut queue = Queue::default();
        let (now, a, b) = (Duration::from_secs(1), node("a"), node("b"));
        queue.keeper_changed(now, true);
        queue.report(now, a, &[wish(1, 1, false)]);
        queue.assign(now, &[a, b], 1);
        assert_eq!(order(&queue).0, []);
        queue.report(now, b, &[wish(2, 1, true)]);
        queue.assign(now, &[a, b], 1);
        assert_eq!(order(&queue), (vec![2], vec![1]));
        let late = now + FORGET_AFTER;
        queue.report(late, a, &[wish(1, 1, false)]);
        queue.assign(late, &[a, b], 1);
        assert_eq!(order(&queue), (vec![1], vec![]), "b was not heard for long");
    }
}
