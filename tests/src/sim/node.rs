//! A simulated node: the shipped core, detector and log on a disk that can crash.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_core::task::Records;
use cortado_core::{Config, Core, RecordRef, StateFile};
use cortado_log::{Fate, Log, LogConfig, LogReader, MemStorage};
use cortado_membership::{
    DetectorConfig, Identity, KnownPeer, Membership, Profile, next_generation,
};
use cortado_protocol::{LogId, NodeId};
use rand::RngExt;
use rand::rngs::StdRng;

use super::copies::{Copy, copy_of};

/// What a process has while it runs.
pub(crate) struct Process {
    pub(crate) core: Core,
    /// Detector, election and reports of health.
    pub(crate) detector: Membership,
    pub(crate) log: Log,
    pub(crate) reader: LogReader,
    /// Appends that wait for the next sync.
    pub(crate) unsynced: Vec<(u64, Copy)>,
    pub(crate) sync_planned: bool,
    /// When the next tick is planned; later plans are stale.
    pub(crate) tick_at: Duration,
    pub(crate) probe_at: Option<Duration>,
    /// The members it was last told of.
    pub(crate) live: Vec<NodeId>,
}

/// A node, running or not.
pub(crate) struct SimNode {
    pub(crate) id: NodeId,
    pub(crate) index: usize,
    pub(crate) storage: Arc<MemStorage>,
    pub(crate) process: Option<Process>,
    /// Number of its process starts: events of an earlier one are stale.
    pub(crate) boot: u64,
    pub(crate) generation: Option<u64>,
    pub(crate) known: Vec<KnownPeer>,
    /// The state files on its disk.
    pub(crate) files: BTreeMap<StateFile, Bytes>,
    /// The log on its disk, once it was opened.
    pub(crate) log_id: Option<LogId>,
    /// How far its wall clock is off, in milliseconds.
    pub(crate) clock_ms: i64,
    /// When each of its two workers is free.
    pub(crate) workers: [Duration; 2],
}

/// A place in the log, as the core has it.
pub(crate) fn record_ref(record: cortado_log::RecordRef) -> RecordRef {
    let cortado_log::RecordRef { segment, offset, len } = record;
    RecordRef { segment, offset, len }
}

/// Reads a simulated log for tasks.
pub(crate) struct SimRecords(pub(crate) LogReader);

impl Records for SimRecords {
    fn read(&self, record: RecordRef) -> Option<Bytes> {
        let RecordRef { segment, offset, len } = record;
        let record = cortado_log::RecordRef { segment, offset, len };
        self.0.read(record).ok().map(|(_, payload)| payload)
    }
}

pub(crate) fn gossip_addr(index: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, index as u8 + 1)), 7000)
}

pub(crate) fn index_of(addr: SocketAddr) -> Option<usize> {
    match addr.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn node_id(index: usize) -> NodeId {
    format!("node-{}", index + 1).parse().expect("a valid node name")
}

pub(crate) fn node_index(id: NodeId) -> Option<usize> {
    id.as_str().strip_prefix("node-")?.parse::<usize>().ok()?.checked_sub(1)
}

impl SimNode {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            id: node_id(index),
            index,
            storage: Arc::new(MemStorage::new()),
            process: None,
            boot: 0,
            generation: None,
            known: Vec::new(),
            files: BTreeMap::new(),
            log_id: None,
            clock_ms: 0,
            workers: [Duration::ZERO; 2],
        }
    }

    /// Starts the process on its disk. Returns what is on it, or `None` if the disk failed and the
    /// process ended at once.
    pub(crate) fn start(
        &mut self,
        config: &Config,
        count: usize,
        now: Duration,
        unix_ms: u64,
        reserve_bytes: u64,
        rng: &mut StdRng,
    ) -> Option<Vec<Copy>> {
        self.boot += 1;
        self.workers = [Duration::ZERO; 2];
        let generation = next_generation(self.generation, unix_ms);
        self.generation = Some(generation);
        let config = Config { node: self.id, boot: generation, ..config.clone() };
        let mut core = Core::new(config);
        for (file, bytes) in &self.files {
            core.restore_state(*file, bytes).expect("a file is as it was saved");
        }
        let log_config =
            LogConfig { first_segment_bytes: 16 << 10, segment_bytes: 64 << 10, reserve_bytes };
        let mut copies = Vec::new();
        let mut deliver =
            |record: cortado_log::RecordRef, meta: &cortado_log::RecordMeta, head: &[u8]| {
                let record = record_ref(record);
                let head = Bytes::copy_from_slice(head);
                core.restore(record, meta.wall_ms, &head).expect("the log delivers whole heads");
                copies.extend(copy_of(record, &head));
            };
        let opened = Log::open(self.storage.clone(), log_config, rng.random(), &mut deliver);
        let (log, recovery) = opened.ok()?;
        self.log_id = Some(LogId(recovery.log_id));
        core.set_log(LogId(recovery.log_id));
        let me = Identity {
            generation,
            leaving: false,
            draining: false,
            id: self.id,
            ip: gossip_addr(self.index).ip(),
            gossip_port: 7000,
            peer_port: 7001,
            client_port: 7002,
            http_addr: None,
        };
        let seeds = (0..count.min(2)).map(gossip_addr).collect();
        let detector_config = DetectorConfig { profile: Profile::Lan, seed: rng.random(), seeds };
        let detector = Membership::new(detector_config, me, self.known.clone(), now, unix_ms);
        let reader = log.reader();
        // What is damaged in a sealed segment shows when it is read.
        copies.retain(|(record, ..)| SimRecords(reader.clone()).read(*record).is_some());
        self.process = Some(Process {
            core,
            detector,
            log,
            reader,
            unsynced: Vec::new(),
            sync_planned: false,
            tick_at: now,
            probe_at: None,
            live: Vec::new(),
        });
        Some(copies)
    }

    /// When a task is done that takes the first free worker for so long.
    pub(crate) fn work(&mut self, now: Duration, took: Duration) -> Duration {
        let [first, second] = &mut self.workers;
        let worker = if *first <= *second { first } else { second };
        *worker = now.max(*worker) + took;
        *worker
    }

    /// Ends the process at once; its machine goes on, with all that was written.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.boot += 1;
    }

    /// Ends process and machine; the disk keeps any part of what was not synced.
    pub(crate) fn cut_power(&mut self, rng: &mut StdRng) {
        self.kill();
        let crashed = self.storage.crash(|pending| match rng.random_range(0..3) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => Fate::Torn(rng.random_range(0..=pending.len)),
        });
        self.storage = Arc::new(crashed);
    }
}
