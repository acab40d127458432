//! Measures how long dead nodes are missed. It kills nodes of a real cluster (SIGKILL), one after
//! the other or several together. After each kill it measures the time until all others have marked
//! the node as down, until another node has completed a job that the dead one would have driven,
//! until there are as many copies of everything as before, and until the node is back.

mod report;
mod settings;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cortado::local::NodeFolder;
use cortado_membership::ring;
use cortado_protocol::{JobId, META_SLOT, NodeId};
use serde_json::Value;

use crate::cluster::{Cluster, Coffee, Shape, job_id, wait_for};

pub use report::Report;
pub use settings::{Outage, Outages};

/// Peers start a node at most so often within five minutes.
const REVIVALS: usize = 3;
/// Time limit of each wait, in seconds.
const LIMIT: u64 = 60;
/// A node logs this when all copies of its entries have reached their owners.
const IN_PLACE: &str = "every copy is in place";

impl Outages {
    /// Runs the measurements.
    ///
    /// # Panics
    /// If any result is wrong or does not come, or a node does not come back.
    #[must_use]
    pub fn run(self) -> Report {
        let (sample, job) = (Coffee::new(Shape::MIDDLE), Coffee::new(Shape::TINY));
        let one_cluster = REVIVALS * self.nodes / self.together;
        let one_cluster = if self.reviving { one_cluster } else { self.kills };
        let mut outages = Vec::new();
        while outages.len() < self.kills {
            let cluster = Cluster::up_timed(self.nodes, &self.timing, self.reviving);
            cluster.run_coffee(sample.dir(), &job_id(1), "sample").run().ok();
            sample.check(&cluster, &job_id(1), "sample");
            for kill in 0..one_cluster.min(self.kills - outages.len()) {
                outages.push(self.kill(&cluster, kill, &job));
            }
        }
        Report { outages: self, seen: outages }
    }

    fn kill(&self, cluster: &Cluster, kill: usize, data: &Coffee) -> Outage {
        cluster.await_members();
        cluster.await_moves();
        let names: Vec<_> = cluster.nodes().iter().map(NodeFolder::name).collect();
        let turn = names.iter().copied().cycle().skip(kill * self.together);
        let victims: Vec<_> = turn.take(self.together).collect();
        let job = job_driven_by(victims[0], &names, 1000 * (kill as u64 + 1));
        let (victims, others): (Vec<_>, Vec<_>) =
            names.iter().map(NodeId::as_str).partition(|name| is_one_of(&victims, name));
        let in_place = |name: &&str| cluster.log(name).matches(IN_PLACE).count();
        let in_place_before: Vec<_> = others.iter().map(in_place).collect();
        let processes: Vec<_> = victims.iter().map(|name| cluster.process(name)).collect();

        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let killed = Instant::now();
        cluster.kill_together(&victims);
        let (served, copies) = std::thread::scope(|scope| {
            let serve = || {
                cluster.run_coffee(data.dir(), &job, &job).run().ok();
                let served = killed.elapsed();
                data.check(cluster, &job, &job);
                served
            };
            let served = (self.together == 1).then(|| scope.spawn(serve));
            let copies = (!self.reviving).then(|| {
                wait_for("every copy to be in place again", LIMIT, || {
                    let now = others.iter().map(in_place);
                    now.zip(&in_place_before).all(|(now, before)| now > *before).then_some(())
                });
                killed.elapsed()
            });
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (served.map(join), copies)
        });

        let since = if self.reviving {
            for (name, before) in victims.iter().zip(&processes) {
                wait_for("the dead node to be started", LIMIT, || {
                    cluster.process(name).filter(|now| Some(*now) != *before)
                });
            }
            killed
        } else {
            let started = Instant::now();
            cluster.local("up").run().ok();
            started
        };
        cluster.await_members();
        let back = since.elapsed();

        let known = times_known(cluster, &victims, &others, unix);
        assert!(self.reviving || known.is_some(), "not all others have missed {victims:?}");
        let (known_to_one, known_to_all) = known.unzip();
        let outage = Outage { known_to_one, known_to_all, served, copies, back };
        eprintln!("{}: {outage:.2?}", victims.join(", "));
        outage
    }
}

fn is_one_of(nodes: &[NodeId], name: &str) -> bool {
    nodes.iter().any(|node| node.as_str() == name)
}

/// The times after `since` until the first of the others marked a dead node as down, and until all
/// had marked all. `None` if some have not.
fn times_known(
    cluster: &Cluster,
    dead: &[&str],
    others: &[&str],
    since: Duration,
) -> Option<(Duration, Duration)> {
    let events = cluster.events();
    let known = |by: &str, node: &str| {
        let about = |event: &&Value| {
            event["event"] == "member_down" && event["node"] == node && event["seen_by"] == by
        };
        let times = events.iter().filter(about).filter_map(|event| event["unix_ms"].as_u64());
        times.map(Duration::from_millis).filter(|at| *at >= since).min()
    };
    let pairs = others.iter().flat_map(|by| dead.iter().map(move |node| known(by, node)));
    let times: Vec<_> = pairs.collect::<Option<_>>()?;
    Some((*times.iter().min()? - since, *times.iter().max()? - since))
}

/// The first job, numbered from `first`, that this node drives while all nodes are alive.
fn job_driven_by(node: NodeId, all: &[NodeId], first: u64) -> String {
    let coordinator = |id: &String| {
        let job: JobId = id.parse().expect("a job's id");
        ring::owners(ring::slot_key(job, META_SLOT), all).first() == Some(&node)
    };
    (first..).map(job_id).find(coordinator).expect("each node drives its share")
}
