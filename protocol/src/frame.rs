//! Framing: the layout of messages on a stream.
//!
//! ```text
//! u32 le  length of everything after these four bytes
//! u32 le  length of the head
//! head    postcard
//! tail    raw bytes, may be empty
//! ```
//! Both protocols use this layout. This module encodes and decodes messages; the transport reads
//! them from streams and writes them to streams.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::HEAD_BYTES;

/// Bytes of the outer length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Why bytes are not a message. The connection that they came from is closed; nothing else is
/// affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end before the message does.
    #[error("message is truncated")]
    Truncated,
    /// A length is over its limit; no memory was allocated for it.
    #[error("message of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// The announced length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes are not a value of the expected type.
    #[error("message is malformed: {0}")]
    Malformed(&'static str),
}

/// Encodes a frame, prefix included.
pub fn encode<T: Serialize>(head: &T, tail: &[u8]) -> Bytes {
    let mut bytes = start(head, tail.len(), tail.len());
    bytes.put_slice(tail);
    bytes.freeze()
}

/// Encodes the beginning of a frame whose tail of `tail_len` bytes is sent separately, so that a
/// large tail need not be copied.
pub fn encode_head<T: Serialize>(head: &T, tail_len: usize) -> Bytes {
    start(head, tail_len, 0).freeze()
}

/// The frame up to its tail, with room for `room` more bytes.
fn start<T: Serialize>(head: &T, tail_len: usize, room: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(128 + room);
    bytes.put_bytes(0, 8);
    let extended = postcard::to_extend(head, Extender(bytes));
    let mut bytes = extended.expect("messages serialize to memory").0;
    let head_len = bytes.len() - 8;
    let frame_len = (bytes.len() - PREFIX_BYTES + tail_len) as u32;
    bytes[..4].copy_from_slice(&frame_len.to_le_bytes());
    bytes[4..8].copy_from_slice(&(head_len as u32).to_le_bytes());
    bytes
}

/// Collects the bytes of postcard, which takes the collector by value.
struct Extender(BytesMut);

impl Extend<u8> for Extender {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

/// The length of the frame that follows the prefix, checked against the connection's limit.
///
/// # Errors
/// [`FrameError::TooLarge`] if the frame is over the limit.
pub fn frame_len(prefix: [u8; PREFIX_BYTES], limit: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(prefix) as usize;
    if bytes > limit { Err(FrameError::TooLarge { bytes, limit }) } else { Ok(bytes) }
}

/// Decodes a frame without its prefix. The tail is a slice of `frame`.
///
/// # Errors
/// If the bytes are not exactly one head of type `T` and a tail.
pub fn decode<T: DeserializeOwned>(frame: &Bytes) -> Result<(T, Bytes), FrameError> {
    let prefix = frame.get(..4).ok_or(FrameError::Truncated)?;
    let head_len = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
    if head_len > HEAD_BYTES {
        return Err(FrameError::TooLarge { bytes: head_len, limit: HEAD_BYTES });
    }
    let head = frame.get(4..4 + head_len).ok_or(FrameError::Truncated)?;
    Ok((from_postcard(head)?, frame.slice(4 + head_len..)))
}

/// Whether a receiver with this limit accepts an encoded frame (prefix included), even if the
/// numbers in its head grow to their full length.
#[must_use]
pub fn fits(frame: &[u8], limit: usize) -> bool {
    /// A number in a head takes one to ten bytes.
    const NUMBER_BYTES: usize = 16;
    let Some(&[a, b, c, d]) = frame.get(PREFIX_BYTES..PREFIX_BYTES + 4) else { return false };
    let head_len = u32::from_le_bytes([a, b, c, d]) as usize;
    head_len + NUMBER_BYTES <= HEAD_BYTES && frame.len() - PREFIX_BYTES + NUMBER_BYTES <= limit
}

/// Encodes a value as postcard, for example for the tail of a message.
pub fn to_postcard<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value).expect("messages serialize to memory").into()
}

/// Decodes a postcard value and refuses trailing bytes.
///
/// # Errors
/// [`FrameError::Malformed`] if the bytes are not exactly one `T`.
pub fn from_postcard<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(FrameError::Malformed("trailing bytes")),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(FrameError::Truncated),
        Err(_) => Err(FrameError::Malformed("not a value of the expected type")),
    }
}

/// Decodes a postcard value at the beginning of the bytes.
///
/// # Errors
/// [`FrameError::Malformed`] if the bytes do not begin with a `T`.
pub fn first_of_postcard<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let first = postcard::take_from_bytes(bytes);
    first.map(|(value, _)| value).map_err(|_| FrameError::Malformed("not what was expected first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_round_trip() {
        let bytes = encode(&(7u32, "seven"), b"tail");
        let prefix = [bytes[0], bytes[1], bytes[2], bytes[3]];
        assert_eq!(frame_len(prefix, 1000).unwrap(), bytes.len() - PREFIX_BYTES);
        let (head, tail): ((u32, String), Bytes) = decode(&bytes.slice(PREFIX_BYTES..)).unwrap();
        assert_eq!((head.0, head.1.as_str(), &tail[..]), (7, "seven", &b"tail"[..]));
        assert_eq!([&encode_head(&(7u32, "seven"), 4)[..], b"tail"].concat(), bytes);
    }

    #[test]
    fn lengths_are_checked_before_anything_else() {
        assert!(matches!(frame_len([255; 4], 1000), Err(FrameError::TooLarge { .. })));
        let mut frame = vec![255, 255, 255, 255];
        frame.extend_from_slice(b"xx");
        assert!(matches!(decode::<u32>(&Bytes::from(frame)), Err(FrameError::TooLarge { .. })));
        assert_eq!(
            decode::<u32>(&Bytes::from_static(&[9, 0, 0, 0, 1])),
            Err(FrameError::Truncated)
        );
        assert_eq!(
            decode::<u8>(&Bytes::from_static(&[2, 0, 0, 0, 1, 2])),
            Err(FrameError::Malformed("trailing bytes"))
        );
    }
}
