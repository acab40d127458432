//! Summaries of batches of events: the deltas of the meta slot.

use bytes::Bytes;
use cortado_protocol::frame::{self, FrameError};
use cortado_protocol::stream::StreamHeader;
use serde::{Deserialize, Serialize};

use crate::plan::WindowKey;

/// The summary of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What the batch's head says.
    pub header: StreamHeader,
    /// Events in it: valid ones and dead letters.
    pub received: u32,
    /// Valid events.
    pub valid: u32,
    /// The windows that valid events lie in, in order.
    pub windows: Vec<WindowCount>,
    /// All other events, in order.
    pub dead: Vec<DeadLetter>,
}

/// Valid events of a batch in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowCount {
    /// The window.
    pub key: WindowKey,
    /// Their number, copies counted.
    pub events: u32,
}

/// Which output a dead letter goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The event is not valid.
    Validation,
    /// The event is valid, and something that the plan names can't be computed of it.
    Processing,
}

/// An event that is not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its line in the batch, from 0.
    pub position: u32,
    /// Its kind.
    pub kind: Kind,
    /// Why it is not counted.
    pub reason: String,
    /// Where in the event the reason is: a JSON Pointer (RFC 6901), or nothing.
    pub path: String,
    /// The line as it was sent.
    pub raw: Bytes,
}

impl Summary {
    /// The bytes of the delta.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        frame::to_postcard(self)
    }

    /// Reads what [`Summary::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no summary.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        frame::from_postcard(bytes)
    }
}
