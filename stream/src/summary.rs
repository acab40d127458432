//! Summaries of batches of events: the deltas of the meta slot.

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
    #[serde(with = "serde_bytes_vec")]
    pub raw: Vec<u8>,
}

impl Summary {
    /// The bytes of the delta.
    #[must_use]
    pub fn encode(&self) -> bytes::Bytes {
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

/// Bytes in one piece instead of one by one.
mod serde_bytes_vec {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Visitor)
    }
}
