//! What a start tells about the log it found.

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The log's id: `new_id` for a blank directory, else what it always was.
    pub log_id: u128,
    /// What was delivered and what was not.
    pub report: Report,
}

/// What was delivered, cut and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// There was no log before.
    pub fresh: bool,
    /// Records delivered.
    pub records: u64,
    /// Bytes of a torn tail that were cut: never acknowledged.
    pub torn_bytes: u64,
    /// What was once durable and is lost. Said again at every start until its segment goes.
    pub damage: Vec<Damage>,
    /// Files set aside under these names because nothing in them is a record of this log.
    pub quarantined: Vec<String>,
}

/// A range of a segment that can't be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u32,
    /// First damaged byte.
    pub from: u32,
    /// First byte behind the damage.
    pub to: u32,
    /// Sequence number of the first record lost.
    pub first_lost: u64,
    /// One more than that of the last record lost (equal to `first_lost`: none was); `None` if
    /// unknown.
    pub end_lost: Option<u64>,
}
