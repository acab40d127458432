//! The timing of the failure detector in a new cluster. `cortado init` and `cortado local up` write
//! it into configurations.

use serde::{Deserialize, Serialize};

/// Up to this many cores, if all nodes share them, the failure detector gets more time.
const SHARED_CORES: usize = 4;

/// Timing of the failure detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// As suits a machine like this one, if all nodes run on it.
    #[default]
    Auto,
    /// A crash is known in about 1 s.
    Lan,
    /// In about 2 s; for small or shared machines.
    Shared,
}

impl Timing {
    /// The value of the node's setting `profile`.
    #[must_use]
    pub fn profile(self) -> &'static str {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::Lan => "lan",
            Self::Auto if cores() > SHARED_CORES => "lan",
            Self::Auto | Self::Shared => "shared",
        }
    }
}
