//! What an earlier process wrote down beside the log.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::{JobId, NodeId};
use serde::{Deserialize, Serialize};

use crate::record::Group;

/// What stands in [`crate::StateFile::Expiry`].
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ExpiryFile {
    pub(super) agreed: Vec<(JobId, NodeId, u64)>,
    pub(super) idle: Vec<IdleJob>,
}

/// For how long a job has shown no sign of life, and how far its records went at that moment.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct IdleJob {
    pub(super) job: JobId,
    pub(super) idle_ms: u64,
    pub(super) newest: (u32, u32),
}

/// What is known only while the log is read, before the first input.
#[derive(Default)]
pub(super) struct Restoring {
    /// What an earlier process wrote down of jobs.
    pub(super) idle: BTreeMap<JobId, IdleJob>,
    /// Groups that nobody needs and of which records were found.
    pub(super) dropped: BTreeSet<Group>,
}
