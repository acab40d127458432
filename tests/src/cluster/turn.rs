//! Only one cluster runs on a machine at a time, whichever program runs the tests.

use std::fs::File;

use super::command::programs;

/// Held while a cluster runs.
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its lock")] File);

impl Turn {
    /// Waits until no other cluster runs. The lock ends with the process.
    pub(crate) fn take() -> Self {
        let path = programs().join("cluster-tests.lock");
        let file = File::create(&path).expect("the folder of the programs can be written to");
        file.lock().expect("a local file can be locked");
        Self(file)
    }
}
