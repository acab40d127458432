//! One check for each decoder of bytes from outside: what must hold whatever the bytes are.
//!
//! A check takes any bytes, gives them to the shipped code, and panics if a promise is broken. It is
//! called by the fuzz targets (`fuzz/`), by properties over generated input, and by a test that
//! counts what is allocated (`tests/`). Samples are valid input, made by the code itself: fuzzers
//! start from them.
//!
//! | check | bytes of | decodes |
//! |---|---|---|
//! | [`frames::peer`] | a node | frames of links, their tails, entries |
//! | [`frames::client`] | a client, or a node that answers one | requests, answers, batch headers |
//! | [`dialogue::check`] | nodes and clients | the same, and what a node's core does with them |
//! | [`gossip::check`] | a node | membership datagrams, and what the detector does with them |
//! | [`log::check`] | a disk | segments, the synced mark, the log's id |
//! | [`csv::check`] | a user's files | headers, batch boundaries, rows |
//! | [`plan::check`] | a user, a client | plans |
//! | [`ledger::check`] | a node, a disk | deltas, summaries, outputs of slots, receipts |
//! | [`certificate::check`] | anybody | who a certificate speaks for |
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

pub mod certificate;
pub mod csv;
pub mod dialogue;
pub mod frames;
pub mod gossip;
pub mod ledger;
pub mod log;
mod pieces;
pub mod plan;
mod sample;

pub use pieces::Pieces;
pub use sample::only_batch;

/// A check and where a fuzzer starts.
pub struct Check {
    /// Name of the fuzz target.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Valid input.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them, ordered by name.
pub const CHECKS: &[Check] = &[
    Check { name: "certificate", run: certificate::check, samples: certificate::samples },
    Check { name: "client_frames", run: frames::client, samples: frames::client_samples },
    Check { name: "csv", run: csv::check, samples: csv::samples },
    Check { name: "dialogue", run: dialogue::check, samples: dialogue::samples },
    Check { name: "gossip", run: gossip::check, samples: gossip::samples },
    Check { name: "ledger", run: ledger::check, samples: ledger::samples },
    Check { name: "log", run: log::check, samples: log::samples },
    Check { name: "peer_frames", run: frames::peer, samples: frames::peer_samples },
    Check { name: "plan", run: plan::check, samples: plan::samples },
];
