//! The events of a publisher, drawn from a seed.

use std::fmt::Write;

use bytes::Bytes;
use cortado_protocol::content_hash;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::stream::{Publisher, StreamHeader};
use cortado_stream::time_text;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const START_MS: i64 = 1_700_000_000_000;

/// The events of one publisher, cut into batches.
#[derive(Clone)]
pub(crate) struct Feed {
    pub(super) publisher: Publisher,
    pub(super) batches: Vec<(Vec<Line>, i64)>,
}

/// A line of a batch.
#[derive(Clone)]
pub(super) enum Line {
    /// An event: its id and its content.
    Event(u64, u64),
    /// It can't be read.
    Bad,
}

/// From this content on an event's time is another one than that of most events with its id.
const MOVED: u64 = 1_000;

/// Most events with an id have one time, and so have all equal copies.
pub(super) fn time_of(id: u64, content: u64) -> i64 {
    let moved = content.checked_sub(MOVED).map_or(0, |by| (by as i64 - 6) * 371);
    START_MS + id as i64 * 97 + moved
}

impl Line {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Event(id, content) => {
                let (at, key) = (time_text(time_of(*id, *content)), content % 3);
                format!("{{\"id\":\"e{id}\",\"at\":\"{at}\",\"key\":\"k{key}\",\"n\":{content}}}")
            }
            Self::Bad => "{\"id\":".to_owned(),
        }
    }
}

impl Feed {
    /// Events drawn from a seed: copies of those of other publishers, contradictions, lines that can't
    /// be read, in disorder, with promises of which some are broken.
    pub(crate) fn drawn(seed: u64, number: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ number as u64 ^ 0x5_7ea3);
        let count = rng.random_range(0..14);
        let disorder = rng.random_range(1..40);
        let mut batches: Vec<(Vec<Line>, i64)> = Vec::new();
        for batch in 0..count {
            let line = |rng: &mut StdRng| match rng.random_range(0..20) {
                0 => Line::Bad,
                kind => {
                    let id = batch * 6 + rng.random_range(0..disorder);
                    // Nearly all copies are equal.
                    let content = match kind {
                        1 => rng.random_range(0..9),
                        2 | 3 => MOVED + rng.random_range(0..12),
                        _ => id,
                    };
                    Line::Event(id, content)
                }
            };
            let lines: Vec<_> = (0..rng.random_range(0..9)).map(|_| line(rng)).collect();
            let low = time_of(batch * 6 + rng.random_range(0..12), 0);
            batches.push((lines, low));
        }
        let (name, backfill) = (format!("p{number}"), rng.random_range(0..5) == 0);
        let publisher = Publisher { name, generation: 0, opened_ms: START_MS, backfill };
        Self { publisher, batches }
    }

    /// The last number is that of the batch that ends it.
    pub(super) fn end(&self) -> u64 {
        self.batches.len() as u64
    }

    pub(super) fn batch(&self, number: u64) -> (BatchHeader, Bytes) {
        let mut text = String::new();
        let (mut low_watermark_ms, last) = (i64::MAX, number == self.end());
        if let Some((lines, low)) = self.batches.get(number as usize) {
            low_watermark_ms = *low;
            lines.iter().for_each(|line| writeln!(text, "{}", line.text()).expect("a text"));
        }
        let payload = Bytes::from(text);
        let Publisher { name, generation, .. } = &self.publisher;
        let stream = StreamHeader {
            publisher: name.clone(),
            generation: *generation,
            schema_set: 0,
            low_watermark_ms,
            sent_at_ms: START_MS + 3_600_000,
            last,
        };
        let header = BatchHeader::of_events(stream, number, content_hash(&payload), number);
        (header, payload)
    }
}
