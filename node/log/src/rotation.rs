//! Rotation: how the log moves to a new segment.
//!
//! The order matters. The new file is made, filled and synced under a temporary name; so a full
//! disk shows before the old segment is touched, and no segment ever has half a header. Then the
//! old segment gets its footer, is cut to its length and synced. Only then does the new one get its
//! name. Hence in every state a crash can leave, only the last segment can hold anything unsynced,
//! and every other one ends with its last record or its footer.

use crate::current::Current;
use crate::error::AppendError;
use crate::log::Log;

impl Log {
    /// Goes on in a new segment that has room for a record of `frame_bytes` with so long a head, and
    /// leaves `reserve` bytes free.
    pub(crate) fn rotate(
        &mut self,
        frame_bytes: u32,
        head: usize,
        reserve: u64,
    ) -> Result<(), AppendError> {
        let needed = Current::bytes_for(frame_bytes, head);
        let wanted = self.next_segment_bytes.max(needed);
        let segment = match self.current.exists() {
            true => self.current.segment.checked_add(1).ok_or(AppendError::Full)?,
            false => self.current.segment,
        };
        let free = self.storage.free_bytes().map_err(|error| self.failed(error))?;
        // Near the limit a small segment does: better than refusing while there is space.
        let bytes = [wanted, self.config.first_segment_bytes.max(needed), needed]
            .into_iter()
            .find(|bytes| u64::from(*bytes).saturating_add(reserve) <= free)
            .ok_or(AppendError::Full)?;
        let (log_id, sequence) = (self.log_id, self.next_sequence);
        let prepared = Current::prepare(&*self.storage, log_id, segment, sequence, bytes)
            .map_err(|error| self.failed(error))?;

        // From here on an error leaves the old segment cut: whatever it is, it ends the log.
        let sealed = self.current.seal(&*self.storage, log_id);
        match sealed.and_then(|()| prepared.publish(&*self.storage)) {
            Ok(current) => self.current = current,
            Err(error) => {
                self.poisoned = true;
                return Err(AppendError::Io(error));
            }
        }
        self.all_synced();
        self.segments.add(segment);
        self.next_segment_bytes = wanted.saturating_mul(2).min(self.config.segment_bytes);
        Ok(())
    }
}
