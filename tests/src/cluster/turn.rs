//! How many clusters run on a machine at a time, whichever program runs the tests.

use std::fs::{File, TryLockError};

use super::command::programs;
use super::wait::wait_for;

/// Held while a cluster runs.
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its lock")] File);

/// Seconds after which a test gives up to wait for the others.
const PATIENCE: u64 = 3_600;

impl Turn {
    /// Waits until this cluster may run. nextest knows which tests must be alone
    /// (.config/nextest.toml), and two of the others run at a time; otherwise all run one by one. The
    /// lock ends with the process.
    pub(crate) fn take() -> Self {
        let places = if std::env::var_os("NEXTEST").is_some() { 2 } else { 1 };
        let place = |number| {
            let path = programs().join(format!("cluster-tests-{number}.lock"));
            let file = File::create(path).expect("the folder of the programs can be written to");
            match file.try_lock() {
                Ok(()) => Some(Self(file)),
                Err(TryLockError::WouldBlock) => None,
                Err(TryLockError::Error(error)) => panic!("a local file can be locked: {error}"),
            }
        };
        wait_for("another cluster to end", PATIENCE, || (0..places).find_map(place))
    }
}
