//! Gray failures: nodes that are alive in the membership but do not work.
//!
//! Each kind of fault hits another node. With `CORTADO_GRAY=all` each kind hits each node of a
//! cluster, which takes some ten minutes. Among five nodes each role is hit: each node is a worker,
//! and the coordinator of a job that is chosen for it.

use std::cell::Cell;
use std::env;
use std::time::Instant;

use cortado::local::NodeFolder;
use cortado_membership::ring;
use cortado_protocol::{JobId, META_SLOT, NodeId};
use serde_json::Value;
use tests::cluster::{Cluster, Coffee, Shape, job_id, wait_for};
use tests::kernel::{Crowded, Filter, Frozen, Way, in_own_network};

/// Time limit in seconds for all nodes to notice. The aim is 3 s; small machines need more.
const KNOWN: u64 = 20;
/// Longer than the test: the test ends all faults itself.
const LONG: &str = "10m";

/// The kinds of faults.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Made by `cortado chaos` with these arguments.
    Told(&'static [&'static str]),
    DataPort(Way),
    ClientPort,
    Disk,
    Core,
}

impl Kind {
    /// Part of the reason that the members report of such a node; `None` if it must not be called
    /// ill.
    fn says(self) -> Option<&'static str> {
        match self {
            Self::Told(["loop-stall"]) => Some("its loop has stood still for"),
            Self::Told(["disk-hang"]) | Self::Disk => Some("its disk has not answered for"),
            Self::Told(_) | Self::DataPort(_) => Some("data port"),
            Self::ClientPort | Self::Core => None,
        }
    }

    /// A hanging disk is noticed only when there is something to write.
    fn needs_a_job(self) -> bool {
        matches!(self, Self::Told(["disk-hang"]) | Self::Disk)
    }
}

/// A fault that lasts until this is dropped.
#[expect(dead_code, reason = "kept for what dropping them does")]
enum Trouble<'a> {
    Told(&'a Cluster),
    Filter(Filter),
    Frozen(Frozen),
    Crowded(Crowded),
}

impl<'a> Trouble<'a> {
    fn make(kind: Kind, cluster: &'a Cluster, node: &str) -> Self {
        let [_, data, client] = cluster.ports(node);
        match kind {
            Kind::Told(fault) => {
                let mut arguments = fault.to_vec();
                arguments.extend([node, "--for", LONG]);
                cluster.chaos(&arguments);
                Self::Told(cluster)
            }
            Kind::DataPort(way) => Self::Filter(Filter::port(data.port(), way)),
            Kind::ClientPort => Self::Filter(Filter::port(client.port(), Way::Both)),
            Kind::Disk => Self::Frozen(Frozen::disk(cluster, node)),
            Kind::Core => Self::Crowded(Crowded::core(cluster, node, 3)),
        }
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        if let Self::Told(cluster) = self {
            cluster.chaos(&["heal"]);
        }
    }
}

/// A cluster and its jobs.
struct Ward {
    cluster: Cluster,
    data: Coffee,
    last_job: Cell<u64>,
}

impl Ward {
    fn open(cluster: Cluster) -> Self {
        let data = Coffee::new(Shape::TINY);
        Self { cluster, data, last_job: Cell::new(0) }
    }

    /// Waits until another node sees this member in this state, with this text in the reason, and
    /// all others alive.
    fn await_state(&self, node: &str, state: &str, says: &str) {
        let seen_by = self.witness(node);
        wait_for(&format!("{seen_by} to see {node} {state} and the others alive"), KNOWN, || {
            let view = self.view(seen_by)?;
            let right = |member: &Value| {
                let reason = member["reason"].as_str().unwrap_or_default();
                if member["id"] == node {
                    member["state"] == state && reason.contains(says)
                } else {
                    member["state"] == "alive"
                }
            };
            view["members"].as_array()?.iter().all(right).then_some(())
        });
    }

    fn view(&self, seen_by: &str) -> Option<Value> {
        let address = self.cluster.address(seen_by);
        let run = self.cluster.cortado(&["nodes", "--json", "--connect", &address]).run();
        serde_json::from_str(&run.stdout).ok()
    }

    fn witness(&self, node: &str) -> &'static str {
        if node == "node-1" { "node-3" } else { "node-1" }
    }

    /// Runs a job that this node would drive if it were well, and checks its reports. Returns the
    /// duration in seconds.
    fn run_job(&self, coordinator: &str) -> f32 {
        let nodes = self.cluster.nodes().into_iter().map(|node| node.name());
        let nodes: Vec<NodeId> = nodes.collect();
        let is_home = |job: &u64| {
            let job: JobId = job_id(*job).parse().expect("it is an id");
            let owners = ring::owners(ring::slot_key(job, META_SLOT), &nodes);
            owners[0].to_string() == coordinator
        };
        let job = (self.last_job.get() + 1..).find(is_home).expect("there is no end of jobs");
        self.last_job.set(job);
        let (id, out) = (job_id(job), format!("job-{job}"));
        let began = Instant::now();
        let _ = self.cluster.run_coffee(self.data.dir(), &id, &out).within(60).run().ok();
        let took = began.elapsed().as_secs_f32();
        self.data.check(&self.cluster, &id, &out);
        took
    }

    /// Disturbs one node, and checks: the others call it ill with the reason (or do not, if it is
    /// well enough), and call no other node ill; jobs end with the right result; the node is well
    /// again after the fault. Prints the times. Does not check for restarts: the supervisor
    /// restarts a node that is ill for half a minute, and a slow machine may take that long.
    fn is_passed_over(&self, node: &str, kind: Kind) {
        let usual = self.run_job(node);
        let trouble = Trouble::make(kind, &self.cluster, node);
        let began = Instant::now();
        if kind.needs_a_job() {
            let _ = self.run_job(self.witness(node));
        }
        let known = kind.says().map(|says| {
            self.await_state(node, "ill", says);
            began.elapsed().as_secs_f32()
        });
        let coordinators = [node, self.witness(node), node];
        let took = coordinators.map(|coordinator| self.run_job(coordinator));
        if kind.says().is_none() {
            self.await_state(node, "alive", "");
        }
        let known =
            known.map_or("not called ill".to_owned(), |known| format!("ill after {known:.2} s"));
        println!("{kind:?} {node}: {known}, jobs {took:.2?} s, before {usual:.2} s");
        drop(trouble);
        self.await_state(node, "alive", "");
    }

    /// Each kind of fault hits another node, or all nodes.
    fn round(&self, kinds: &[Kind]) {
        let all = env::var("CORTADO_GRAY").is_ok_and(|which| which == "all");
        // The supervisor comes first, so the lead moves to another node and back. The queue keeper
        // comes second.
        let supervisor = self.cluster.supervisor(20);
        let mut nodes: Vec<NodeId> = self.cluster.nodes().iter().map(NodeFolder::name).collect();
        let keeper = ring::first_owner(ring::ADMISSION_KEY, &nodes);
        nodes.sort_by_key(|node| (node.to_string() != supervisor, Some(*node) != keeper));
        let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
        for (number, kind) in kinds.iter().enumerate() {
            for (at, node) in nodes.iter().enumerate() {
                if all || at == number % nodes.len() {
                    self.is_passed_over(node, *kind);
                }
            }
        }
    }
}

#[test]
fn a_node_that_is_half_dead_is_called_ill_and_stops_no_job() {
    Ward::open(Cluster::up_for_trouble(5)).round(&[
        // The first and the third report themselves ill, the second is reported by others. The
        // kernel test below cuts ports in both directions.
        Kind::Told(&["disk-hang"]),
        Kind::Told(&["data-cut", "--oneway", "in"]),
        Kind::Told(&["loop-stall"]),
    ]);
}

#[test]
fn what_the_kernel_does_to_a_node_stops_no_job() {
    in_own_network("what_the_kernel_does_to_a_node_stops_no_job", || {
        let cluster = Cluster::up_reviving(5);
        cluster.move_to_own_disks();
        Ward::open(cluster).round(&[
            Kind::DataPort(Way::Both),
            Kind::DataPort(Way::In),
            Kind::ClientPort,
            Kind::Disk,
            Kind::Core,
        ]);
    });
}
