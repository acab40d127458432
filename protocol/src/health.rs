//! Why a node that answers gets no roles: its own reports, and the reports of its peers. Membership
//! exchanges them, and placement follows them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong with a node, as its own checks find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Illness {
    /// Its event loop stands still.
    Loop,
    /// Its disk has not finished a write or a sync.
    Disk,
    /// It has no working data link to most of the members.
    Links,
}

impl Illness {
    /// All illnesses.
    pub const ALL: [Self; 3] = [Self::Loop, Self::Disk, Self::Links];
}

/// An illness and its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ill {
    /// The illness.
    pub illness: Illness,
    /// Its duration in seconds.
    pub for_s: u16,
}

impl fmt::Display for Ill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { illness, for_s } = self;
        match illness {
            Illness::Loop => write!(f, "its loop has stood still for {for_s} s"),
            Illness::Disk => write!(f, "its disk has not answered for {for_s} s"),
            Illness::Links => {
                write!(f, "it has not reached the data ports of most other nodes for {for_s} s")
            }
        }
    }
}
