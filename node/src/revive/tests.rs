//! The contract of all revivers, and what each does beyond it.

mod docker;

use std::path::PathBuf;
use std::time::Duration;

use cortado_local::{By, Place};
use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use rustix::process::Signal;

use super::*;
use crate::clock::unix_ms;

const LIMIT: Duration = Duration::from_secs(20);

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// Nodes that a reviver can start, and what their operator can do to them.
trait Bench {
    fn reviver(&self) -> Arc<dyn Reviver>;
    /// The name of a node that has never run.
    fn node(&self) -> NodeId;
    /// An identifier of a node's current run, if it runs.
    fn run(&self, node: NodeId) -> Option<String>;
    /// Ends a node as a fault does.
    fn kill(&self, node: NodeId);
    /// Pauses a node.
    fn pause(&self, node: NodeId);
    /// Stops a node on purpose, as its operator does.
    fn stop(&self, node: NodeId);
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("no {what} in time"))
}

/// What every reviver that can revive does.
async fn contract(bench: &dyn Bench) {
    let (reviver, node) = (bench.reviver(), bench.node());
    assert!(reviver.is_able());
    // Unknown nodes are not started, and do not make the reviver fail.
    for stranger in [id("nobody"), id(".."), id(".")] {
        assert_eq!(reviver.inspect(stranger).await, Evidence::Unknown, "{stranger}");
        assert!(reviver.start(stranger).await.is_err());
        assert!(reviver.restart(stranger).await.is_err());
    }

    assert_eq!(reviver.inspect(node).await, Evidence::Exited);
    reviver.start(node).await.unwrap();
    let first = until("process", || bench.run(node)).await;
    reviver.start(node).await.unwrap();
    let (left, right) = tokio::join!(reviver.start(node), reviver.start(node));
    assert_eq!((left, right), (Ok(()), Ok(())));
    assert_eq!(bench.run(node), Some(first.clone()), "to start what runs does nothing");
    assert!(!matches!(reviver.inspect(node).await, Evidence::Exited | Evidence::Retired));

    // A reviver notices an end, and tells a paused node from a dead one.
    let mut ends = Arc::clone(&reviver).ends();
    bench.kill(node);
    let seen = tokio::time::timeout(LIMIT, ends.recv()).await;
    assert_eq!(seen.expect("the end is seen in time"), Some(node));
    assert_eq!(reviver.inspect(node).await, Evidence::Exited);
    reviver.start(node).await.unwrap();
    let second = until("process", || bench.run(node)).await;
    assert_ne!(second, first);
    bench.pause(node);
    assert!(!matches!(reviver.inspect(node).await, Evidence::Exited | Evidence::Healthy));
    reviver.restart(node).await.unwrap();
    let third = until("process", || bench.run(node)).await;
    assert_ne!(third, second);

    bench.stop(node);
    assert_eq!(reviver.inspect(node).await, Evidence::Retired);
    assert!(reviver.start(node).await.is_err(), "what was stopped on purpose stays down");
    assert_eq!(bench.run(node), None);
}

/// Nodes whose program only sleeps.
struct Processes {
    root: tempfile::TempDir,
}

impl Processes {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let bench = Self { root };
        std::fs::create_dir(bench.place().path()).unwrap();
        std::fs::write(bench.place().config(), "data = 'data'\n").unwrap();
        std::fs::write(bench.daemon(), "#!/bin/sh\nexec sleep 60\n").unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bench.daemon(), executable).unwrap();
        bench
    }

    fn daemon(&self) -> PathBuf {
        self.root.path().join("daemon")
    }

    fn place(&self) -> Place {
        Place::new(self.root.path().join("node-1"))
    }

    fn signal(&self, signal: Signal) {
        assert!(self.place().process().expect("it runs").signal(signal));
    }
}

impl Bench for Processes {
    fn reviver(&self) -> Arc<dyn Reviver> {
        Arc::new(ProcessReviver::new(self.root.path(), &self.daemon()))
    }

    fn node(&self) -> NodeId {
        id("node-1")
    }

    fn run(&self, _: NodeId) -> Option<String> {
        self.place().process().map(|process| format!("{process:?}"))
    }

    fn kill(&self, _: NodeId) {
        let process = self.place().process().expect("it runs");
        assert!(process.signal(Signal::KILL) && process.wait_end(LIMIT));
    }

    fn pause(&self, _: NodeId) {
        self.signal(Signal::STOP);
    }

    fn stop(&self, _: NodeId) {
        self.place().retire().unwrap();
        let process = self.place().process().expect("it runs");
        assert!(process.signal(Signal::TERM) && process.wait_end(LIMIT));
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(process) = self.place().process() {
            let _ = process.signal(Signal::KILL);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_keep_the_contract() {
    contract(&Processes::new()).await;
}

#[tokio::test]
async fn a_process_is_judged_by_its_own_health() {
    let bench = Processes::new();
    let (reviver, node) = (bench.reviver(), bench.node());
    bench.place().start(&bench.daemon(), By::Operator).unwrap();
    // The process runs, but does not answer health checks.
    assert_eq!(reviver.inspect(node).await, Evidence::Ill);
    let data = bench.place().path().join("data");
    std::fs::create_dir(&data).unwrap();
    let state = crate::disk::NodeState::new(cortado_log::StateFiles::new(Arc::new(
        cortado_log::MemStorage::new(),
    )));
    let port = crate::health::HealthPort::open(&data, state).unwrap();
    assert_eq!(reviver.inspect(node).await, Evidence::Starting);
    let mut pings = port.started();
    tokio::spawn(async move {
        while let Some(ping) = pings.recv().await {
            let _ = ping.send(());
        }
    });
    assert_eq!(reviver.inspect(node).await, Evidence::Healthy);
}

#[tokio::test]
async fn none_does_nothing() {
    let reviver: Arc<dyn Reviver> = Arc::new(NoReviver);
    assert!(!reviver.is_able());
    assert_eq!(reviver.inspect(id("node-1")).await, Evidence::Unknown);
    assert!(reviver.start(id("node-1")).await.is_err());
    assert!(reviver.restart(id("node-1")).await.is_err());
    assert_eq!(reviver.ends().recv().await, None);
}

#[test]
fn an_unknown_reviver_is_named() {
    let error = named("magic", Path::new("."), "", "").err().unwrap();
    assert!(error.to_string().contains("magic"), "{error}");
}
