//! What a run is made of, drawn from its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_core::PlantedBug;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A node dies, alone or with its machine's unsynced data, and is started again on its disk.
    Crash,
    /// A node dies some times in a row, soon after each start.
    CrashLoop,
    /// All nodes die at once and are started again in another order.
    CrashAll,
    /// A node dies and is started again on a blank disk.
    Wipe,
    /// A bit of a node's log flips.
    FlipBit,
    /// One disk, most or all of them are full for some seconds.
    FullDisk,
    /// A sync fails, and with it the process.
    FailSync,
    /// A node's wall clock jumps, for a while or for good.
    ClockJump,
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
    /// From one node to another nothing arrives for some seconds, and then all of it.
    Clog,
    /// A link breaks, with everything on it.
    BreakLink,
    /// A client dies, and another one resumes its job.
    Resume,
    /// A disk syncs nothing for some seconds, and then goes on.
    HangSync,
    /// From and to one node no data passes for some seconds, but datagrams do.
    CutData,
}

impl Fault {
    /// Those that leave a node half alive: drawn beside the others.
    pub const GRAY: [Self; 2] = [Self::HangSync, Self::CutData];
    /// All other kinds.
    pub const ALL: [Self; 17] = [
        Self::Crash,
        Self::CrashLoop,
        Self::CrashAll,
        Self::Wipe,
        Self::FlipBit,
        Self::FullDisk,
        Self::FailSync,
        Self::ClockJump,
        Self::Drain,
        Self::Join,
        Self::Pause,
        Self::Cut,
        Self::OneWay,
        Self::Isolate,
        Self::Clog,
        Self::BreakLink,
        Self::Resume,
    ];
}

/// What a run is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Dials {
    /// Nodes at the start.
    pub nodes: usize,
    /// Clients, each with its own job.
    pub clients: usize,
    /// Publishers of one stream, if there is one.
    pub publishers: usize,
    /// Whether the stream keeps its events for a few seconds only.
    pub retention: bool,
    /// How many of them go for good in the middle, after so many acknowledgements.
    pub leaving: (usize, usize),
    /// Share of datagrams lost.
    pub datagram_loss: f64,
    /// Share of datagrams, frames and batches that arrive a second time, later.
    pub repeats: f64,
    /// Longest time a frame travels, in virtual microseconds.
    pub travel_us: u64,
    /// Longest time a sync of a disk takes, in virtual milliseconds.
    pub sync_ms: u64,
    /// What goes wrong, and when.
    pub faults: Vec<(Duration, Fault)>,
    /// Clients that cancel their job in the middle of the upload.
    pub cancels: usize,
    /// Share of batches beside which one beyond the table's end is sent.
    pub beyond_end: f64,
    /// How long a job without a sign of life is kept, if that is short.
    pub job_ttl: Option<Duration>,
    /// How long a client takes for its upload, at least.
    pub upload: Duration,
    /// When the first client stops, by its acknowledgements, and for how long; then it goes on.
    pub stop: Option<(usize, Duration)>,
    /// Rows of a table at most.
    pub rows: usize,
    /// Longest time that a task takes one of a node's two workers, in virtual milliseconds; without
    /// it all tasks run side by side.
    pub task_ms: Option<u64>,
    /// Bytes of memory for slots' outputs at each coordinator.
    pub outputs: usize,
    /// A fault of the program itself, to see whether it is found.
    pub planted: Option<PlantedBug>,
}

impl Dials {
    /// A run in which nothing goes wrong.
    #[must_use]
    pub fn calm(nodes: usize, clients: usize) -> Self {
        Self {
            nodes,
            clients,
            publishers: 0,
            retention: false,
            leaving: (0, 0),
            datagram_loss: 0.0,
            repeats: 0.0,
            travel_us: 3_000,
            sync_ms: 15,
            faults: Vec::new(),
            cancels: 0,
            beyond_end: 0.0,
            job_ttl: None,
            upload: Duration::ZERO,
            stop: None,
            rows: 400,
            task_ms: None,
            outputs: 1 << 26,
            planted: None,
        }
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
        let nodes = rng.random_range(1..=9);
        let mut kinds: Vec<_> = Fault::ALL.into_iter().filter(|_| rng.random_bool(0.4)).collect();
        // Nobody has a second copy there.
        kinds.retain(|kind| nodes > 1 || !matches!(kind, Fault::Wipe | Fault::FlipBit));
        // Often few kinds at the busiest time: what goes wrong together finds most.
        let (least, until_ms) = if rng.random_bool(0.4) {
            kinds.shuffle(rng);
            kinds.truncate(2);
            (6, 1_500)
        } else {
            (0, 4_000)
        };
        let count = if kinds.is_empty() { 0 } else { rng.random_range(least..12) };
        let mut faults = Vec::new();
        for _ in 0..count {
            let at = Duration::from_millis(rng.random_range(100..until_ms));
            faults.push((at, kinds[rng.random_range(0..kinds.len())]));
        }
        faults.extend(gray(seed, nodes));
        let datagram_loss = [0.0, 0.02, 0.1, 0.3][rng.random_range(0..4)];
        let repeats = [0.0, 0.0, 0.05, 0.5][rng.random_range(0..4)];
        let travel_us = [3_000, 3_000, 20_000, 100_000][rng.random_range(0..4)];
        let (clients, rows) = many(seed).unwrap_or((rng.random_range(1..=3), 400));
        let cancels = usize::from(rng.random_bool(0.2));
        let sync_ms = [5, 15, 60, 300][rng.random_range(0..4)];
        let beyond_end = beyond_end(seed);
        let job_ttl = job_ttl(seed);
        // An upload that outlasts the time to live is alive all the same.
        let longest = Duration::from_secs(20);
        let upload = job_ttl.map_or(Duration::ZERO, |ttl| (2 * ttl).min(longest));
        // One result of the simulated datasets, but not two.
        let outputs = if seed % 4 == 1 { 4_800 } else { 1 << 26 };
        let calm = Self::calm(nodes, clients);
        Self {
            beyond_end,
            job_ttl,
            outputs,
            rows,
            publishers: if job_ttl.is_none() { publishers(seed) } else { 0 },
            retention: retention(seed),
            leaving: leaving(seed),
            stop: stop(seed),
            task_ms: (seed % 4 == 2).then_some([5, 50, 300][(seed / 4 % 3) as usize]),
            upload,
            datagram_loss,
            repeats,
            travel_us,
            sync_ms,
            faults,
            cancels,
            ..calm
        }
    }
}

/// Drawn from a stream of its own, so that it changes nothing that other dials draw.
fn beyond_end(seed: u64) -> f64 {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0xbe_0e4d);
    [0.0, 0.0, 0.0, 0.1][rng.random_range(0..4)]
}

/// Drawn from a stream of its own, too.
fn gray(seed: u64, nodes: usize) -> Vec<(Duration, Fault)> {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0x6e_a11f);
    if nodes == 1 || !rng.random_bool(0.25) {
        return Vec::new();
    }
    let one = |rng: &mut StdRng| {
        let at = Duration::from_millis(rng.random_range(100..4_000));
        (at, Fault::GRAY[rng.random_range(0..Fault::GRAY.len())])
    };
    (0..rng.random_range(1..=3)).map(|_| one(rng)).collect()
}

/// Drawn from a stream of its own, too.
fn job_ttl(seed: u64) -> Option<Duration> {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0x7_71fe);
    let longest = [6_000, 30_000][rng.random_range(0..2)];
    rng.random_bool(0.25).then(|| Duration::from_millis(rng.random_range(3_000..longest)))
}

/// A stream of its own, too: a client that stops in the middle, often for longer than an upload may
/// keep its place.
fn stop(seed: u64) -> Option<(usize, Duration)> {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0x57_0b5e);
    let stop = (rng.random_range(0..12), Duration::from_millis(rng.random_range(500..40_000)));
    rng.random_bool(0.125).then_some(stop)
}

/// A stream of its own, too: in every third run events are published.
fn publishers(seed: u64) -> usize {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0xe_7e25);
    let publishers = rng.random_range(1..=4);
    if rng.random_range(0..3) == 0 { publishers } else { 0 }
}

/// A stream of its own, too: every second stream forgets.
fn retention(seed: u64) -> bool {
    StdRng::seed_from_u64(seed ^ 0x4e_7e27).random_bool(0.5)
}

/// A stream of its own, too: of every third stream some publishers never come back.
fn leaving(seed: u64) -> (usize, usize) {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0x1e_a7e5);
    let leaving = (rng.random_range(1..=2), rng.random_range(0..8));
    if rng.random_range(0..3) == 0 { leaving } else { (0, 0) }
}

/// A stream of its own, too: now and then many small jobs at once.
fn many(seed: u64) -> Option<(usize, usize)> {
    let rng = &mut StdRng::seed_from_u64(seed ^ 0x3a_17);
    let many = (rng.random_range(10..=100), rng.random_range(1..12));
    rng.random_bool(0.01).then_some(many)
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
    /// Frames sent between nodes.
    pub frames: u64,
}
