//! What a run is made of, drawn from its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_core::PlantedBug;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A node dies and is started again on its disk.
    Crash,
    /// All nodes die at once and are started again in another order.
    CrashAll,
    /// A node dies and is started again on a blank disk.
    Wipe,
    /// A node hands over, leaves, and comes back later.
    Drain,
    /// A node that was not there before joins.
    Join,
    /// A node stands still for some seconds.
    Pause,
    /// The network falls into two parts for some seconds.
    Cut,
    /// One node is not heard by another for some seconds.
    OneWay,
    /// Nobody hears anybody for some seconds.
    Isolate,
    /// A link breaks, with everything on it.
    BreakLink,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Crash,
        Self::CrashAll,
        Self::Wipe,
        Self::Drain,
        Self::Join,
        Self::Pause,
        Self::Cut,
        Self::OneWay,
        Self::Isolate,
        Self::BreakLink,
    ];
}

/// What a run is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Dials {
    /// Nodes at the start.
    pub nodes: usize,
    /// Clients, each with its own job.
    pub clients: usize,
    /// Share of datagrams lost.
    pub datagram_loss: f64,
    /// Longest time a sync of a disk takes, in virtual milliseconds.
    pub sync_ms: u64,
    /// What goes wrong, and when.
    pub faults: Vec<(Duration, Fault)>,
    /// Clients that cancel their job in the middle of the upload.
    pub cancels: usize,
    /// A fault of the program itself, to see whether it is found.
    pub planted: Option<PlantedBug>,
}

impl Dials {
    /// A run in which nothing goes wrong.
    #[must_use]
    pub fn calm(nodes: usize, clients: usize) -> Self {
        let (faults, cancels, planted) = (Vec::new(), 0, None);
        Self { nodes, clients, datagram_loss: 0.0, sync_ms: 15, faults, cancels, planted }
    }

    /// The same with `count` faults of one kind, spread over the first seconds.
    #[must_use]
    pub fn with(mut self, seed: u64, fault: Fault, count: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0xfa_017);
        let at = |rng: &mut StdRng| Duration::from_millis(rng.random_range(100..3_000));
        self.faults.extend((0..count).map(|_| (at(rng), fault)));
        self
    }

    /// Dials drawn from a seed ("swarm testing", Groce et al., ISSTA 2012: each run has its own mix
    /// of faults, so that rare combinations come up).
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0xd1a1_5eed);
        let nodes = rng.random_range(1..=7);
        let mut kinds: Vec<_> = Fault::ALL.into_iter().filter(|_| rng.random_bool(0.4)).collect();
        // Nobody has a second copy there.
        kinds.retain(|kind| nodes > 1 || *kind != Fault::Wipe);
        let count = if kinds.is_empty() { 0 } else { rng.random_range(0..12) };
        let mut faults = Vec::new();
        for _ in 0..count {
            let at = Duration::from_millis(rng.random_range(100..4_000));
            faults.push((at, kinds[rng.random_range(0..kinds.len())]));
        }
        // The promise holds while fewer than W disks are lost for good.
        let mut wipes = 0;
        faults.retain(|(_, fault)| {
            wipes += usize::from(*fault == Fault::Wipe);
            *fault != Fault::Wipe || wipes == 1
        });
        let datagram_loss = [0.0, 0.02, 0.1, 0.3][rng.random_range(0..4)];
        let clients = rng.random_range(1..=3);
        let cancels = usize::from(rng.random_bool(0.2));
        let sync_ms = [5, 15, 60, 300][rng.random_range(0..4)];
        Self { nodes, clients, datagram_loss, sync_ms, faults, cancels, planted: None }
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over all that happened, in order.
    pub trace: u64,
    /// Virtual time it took.
    pub took: Duration,
    /// Faults that really happened while a job ran, by kind.
    pub seen: BTreeMap<Fault, u32>,
    /// Batches acknowledged.
    pub acknowledged: usize,
}
