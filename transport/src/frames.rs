//! Reads and writes frames on QUIC streams, in the layout of [`cortado_protocol::frame`]. The
//! connections of nodes and clients use it.

use bytes::{Buf, Bytes};
use cortado_protocol::frame::{FrameError, PREFIX_BYTES, decode, frame_len};
use quinn::{RecvStream, SendStream};
use serde::de::DeserializeOwned;

use crate::buffers::{Buffer, BufferPool};

/// Largest piece taken from a stream at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Why no frame could be read. The stream can't be used any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not a frame, or the frame is over the limit.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream or its connection ended too early.
    #[error("stream lost: {0}")]
    Lost(#[from] quinn::ReadError),
}

/// Why no frame could be written. The stream can't be used any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("stream lost: {0}")]
pub struct WriteError(#[from] quinn::WriteError);

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    limit: usize,
    /// Received bytes that were not handed out yet.
    pending: Bytes,
    /// The bytes of the next prefix that have arrived.
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// Length of the frame being collected, once its prefix is known.
    expected: Option<usize>,
    /// Collects a frame that does not arrive in one piece.
    partial: Buffer,
    buffers: BufferPool,
}

impl FrameReader {
    /// Reads frames of at most `limit` bytes; no memory is allocated for longer ones.
    #[must_use]
    pub fn new(stream: RecvStream, limit: usize) -> Self {
        Self::with_buffers(stream, limit, BufferPool::new(0))
    }

    /// Like [`FrameReader::new`], but takes buffers for large frames from the pool.
    #[must_use]
    pub fn with_buffers(stream: RecvStream, limit: usize, buffers: BufferPool) -> Self {
        Self {
            stream,
            limit,
            pending: Bytes::new(),
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            expected: None,
            partial: Buffer::default(),
            buffers,
        }
    }

    /// The next frame without its prefix; `None` if the stream ended between two frames.
    /// Cancel-safe: no bytes are lost.
    ///
    /// # Errors
    /// If the stream is lost, ends within a frame, or announces one over the limit.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(frame) = self.assemble()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.pending = chunk.bytes,
                None if self.expected.is_none() && self.prefix_len == 0 => return Ok(None),
                None => return Err(FrameError::Truncated.into()),
            }
        }
    }

    /// The next frame, decoded: head and tail.
    ///
    /// # Errors
    /// As [`FrameReader::next`], or if the head is not a `T`.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Bytes)>, ReadError> {
        match self.next().await? {
            Some(frame) => Ok(Some(decode(&frame)?)),
            None => Ok(None),
        }
    }

    /// Length of the next frame, once its prefix has arrived; `None` if the stream ended. It does
    /// not consume the frame, so the caller can make room first. Cancel-safe.
    ///
    /// # Errors
    /// As [`FrameReader::next`].
    pub async fn peek_len(&mut self) -> Result<Option<usize>, ReadError> {
        loop {
            self.take_prefix()?;
            if self.expected.is_some() {
                return Ok(self.expected);
            }
            match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.pending = chunk.bytes,
                None if self.prefix_len == 0 => return Ok(None),
                None => return Err(FrameError::Truncated.into()),
            }
        }
    }

    /// Tells the other side that nothing more will be read.
    pub fn stop(&mut self, code: u32) {
        // Fails only if the stream is already closed.
        let _ = self.stream.stop(code.into());
    }

    fn take_prefix(&mut self) -> Result<(), FrameError> {
        if self.expected.is_some() {
            return Ok(());
        }
        let arrived = self.pending.len().min(PREFIX_BYTES - self.prefix_len);
        let end = self.prefix_len + arrived;
        self.pending.copy_to_slice(&mut self.prefix[self.prefix_len..end]);
        self.prefix_len = end;
        if self.prefix_len == PREFIX_BYTES {
            self.expected = Some(frame_len(self.prefix, self.limit)?);
            self.prefix_len = 0;
        }
        Ok(())
    }

    /// Takes the pending bytes. A frame that arrived in one piece is returned as a slice of them.
    fn assemble(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.take_prefix()?;
        let Some(expected) = self.expected else { return Ok(None) };
        if self.partial.is_empty() && self.pending.len() >= expected {
            self.expected = None;
            return Ok(Some(self.pending.split_to(expected)));
        }
        if self.partial.is_empty() {
            self.partial = self.buffers.take(expected);
        }
        let missing = expected - self.partial.len();
        let piece = self.pending.len().min(missing);
        self.partial.extend_from_slice(&self.pending[..piece]);
        self.pending.advance(piece);
        if piece == missing {
            self.expected = None;
            return Ok(Some(std::mem::take(&mut self.partial).freeze()));
        }
        Ok(None)
    }
}

/// Writes frames to a stream. A cancelled write may leave half a frame in the stream: then drop the
/// writer.
#[derive(Debug)]
pub struct FrameWriter(SendStream);

impl FrameWriter {
    /// Writes to this stream.
    #[must_use]
    pub fn new(stream: SendStream) -> Self {
        Self(stream)
    }

    /// Writes an encoded frame ([`cortado_protocol::frame::encode`]); waits while the other side
    /// does not read.
    ///
    /// # Errors
    /// If the stream is lost.
    pub async fn write(&mut self, frame: Bytes) -> Result<(), WriteError> {
        Ok(self.0.write_chunk(frame).await?)
    }

    /// Writes several frames at once, which saves packets.
    ///
    /// # Errors
    /// If the stream is lost.
    pub async fn write_many(&mut self, frames: &mut [Bytes]) -> Result<(), WriteError> {
        Ok(self.0.write_all_chunks(frames).await?)
    }

    /// Ends the stream: nothing more will be written.
    pub fn finish(&mut self) {
        // Fails only if the stream is already closed.
        let _ = self.0.finish();
    }

    /// Waits until the other side has received everything, or has stopped reading.
    pub async fn delivered(&mut self) {
        let _ = self.0.stopped().await;
    }

    /// Resolves when the other side stops reading or is gone. After [`FrameWriter::finish`] it also
    /// resolves when everything has arrived.
    pub fn unwanted(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let stopped = self.0.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Abandons the stream: the other side gets an error instead of an end.
    pub fn reset(&mut self, code: u32) {
        // Fails only if the stream is already closed.
        let _ = self.0.reset(code.into());
    }
}

#[cfg(test)]
mod tests;
