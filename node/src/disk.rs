//! The node's disk: its log, and the small state files beside it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use cortado_core::{Core, RecordRef, StateFile};
use cortado_log::{FileStorage, Log, LogConfig, StateError, StateFiles, Storage};
use cortado_membership::{KnownPeer, next_generation};
use cortado_protocol::{LogId, NodeId, frame};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chaos::Chaos;
use crate::keeper::Files;

const GENERATION: &str = "generation";
pub(crate) const PEERS: &str = "peers";
const PROBE: &str = "probe";
const OWNER: &str = "owner";

/// Kind of the log's records that hold entries.
pub const ENTRY_RECORD: u8 = 1;

/// A place in the log, as the core has it.
pub(crate) fn record_ref(record: cortado_log::RecordRef) -> RecordRef {
    let cortado_log::RecordRef { segment, offset, len } = record;
    RecordRef { segment, offset, len }
}

/// State files of a node.
#[derive(Clone)]
pub struct NodeState(StateFiles);

impl NodeState {
    /// The state files of a node.
    #[must_use]
    pub fn new(files: StateFiles) -> Self {
        Self(files)
    }

    /// Writes a little and syncs it, to see whether the disk works. A full one does: the log keeps a
    /// reserve, and a restart would make no room.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn probe(&self) -> Result<(), StateError> {
        match self.0.write(PROBE, b"probe") {
            Err(StateError::Io(error)) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            probed => probed,
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        match self.0.read(name).with_context(|| format!("state file '{name}'"))? {
            Some(bytes) => Ok(Some(frame::from_postcard(&bytes)?)),
            None => Ok(None),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> anyhow::Result<()> {
        Ok(self.0.write(name, &frame::to_postcard(value))?)
    }

    /// The next generation, made durable before it is returned.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn next_generation(&self, unix_ms: u64) -> anyhow::Result<u64> {
        let next = next_generation(self.read(GENERATION)?, unix_ms);
        self.save_generation(next)?;
        Ok(next)
    }

    /// Makes a generation durable.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn save_generation(&self, generation: u64) -> anyhow::Result<()> {
        self.write(GENERATION, &generation)
    }

    /// The peers ever seen.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn peers(&self) -> anyhow::Result<Vec<KnownPeer>> {
        Ok(self.read(PEERS)?.unwrap_or_default())
    }
}

impl Files for NodeState {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.0.write(name, bytes)
    }
}

/// Whose data folder it is. Which log belongs to it, the log knows itself: it sets segments of another one
/// aside.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    cluster: String,
    node: NodeId,
}

/// A node's disk, opened and locked.
pub struct Disk {
    storage: Arc<dyn Storage>,
    /// The state files.
    pub state: NodeState,
}

impl Disk {
    /// Opens and locks a data folder; makes it if it is not there. With `chaos` it can be filled.
    ///
    /// # Errors
    /// If another process has it, if it is another node's, or the disk fails.
    pub fn open(
        folder: &Path,
        cluster: &str,
        node: NodeId,
        chaos: Option<&Chaos>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("can't make {}", folder.display()))?;
        let storage = FileStorage::open(folder)
            .with_context(|| format!("can't use the data folder {}", folder.display()))?;
        let mut storage: Arc<dyn Storage> = Arc::new(storage);
        if let Some(chaos) = chaos {
            storage = chaos.disk(storage);
        }
        let state = NodeState::new(StateFiles::new(Arc::clone(&storage)));
        match state.read(OWNER)? {
            None => state.write(OWNER, &Owner { cluster: cluster.to_owned(), node })?,
            Some(Owner { cluster: theirs, node: other })
                if (theirs.as_str(), other) != (cluster, node) =>
            {
                bail!(
                    "the data folder {} is that of {other} of cluster '{theirs}', and this is {node} \
                     of '{cluster}': give each node its own folder (`data`), or {node} an empty one",
                    folder.display()
                )
            }
            Some(_) => {}
        }
        Ok(Self { storage, state })
    }

    /// Opens the log and gives the core what it holds.
    ///
    /// # Errors
    /// If the disk fails, or the log is of another version.
    pub fn open_log(
        &self,
        config: LogConfig,
        new_id: u128,
        core: &mut Core,
    ) -> anyhow::Result<Log> {
        for file in StateFile::ALL {
            let name = file.name();
            if let Some(bytes) = self.state.0.read(name)? {
                core.restore_state(file, &bytes)
                    .with_context(|| format!("can't read the state file '{name}'"))?;
            }
        }
        let mut unreadable = 0_u64;
        let mut deliver =
            |record: cortado_log::RecordRef, meta: &cortado_log::RecordMeta, head: &[u8]| {
                let head = Bytes::copy_from_slice(head);
                let record = record_ref(record);
                if meta.kind != ENTRY_RECORD || core.restore(record, meta.wall_ms, &head).is_err() {
                    unreadable += 1;
                }
            };
        let (log, recovery) = Log::open(Arc::clone(&self.storage), config, new_id, &mut deliver)
            .context("can't open the log")?;
        core.set_log(LogId(recovery.log_id));
        let report = &recovery.report;
        tracing::info!(records = report.records, fresh = report.fresh, "log opened");
        if report.torn_bytes > 0 {
            tracing::warn!(bytes = report.torn_bytes, "cut a torn tail, never acknowledged");
        }
        for damage in &report.damage {
            tracing::error!(?damage, "part of the log is damaged; peers refill it");
        }
        for file in &report.quarantined {
            tracing::error!(%file, "set aside: not a segment of this log");
        }
        if unreadable > 0 {
            tracing::error!(unreadable, "records of another version were left alone");
        }
        Ok(log)
    }
}
