//! What is counted while the node runs, for `/metrics`.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the classes of the time to acknowledge, in seconds.
const ACKNOWLEDGE: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BatchLabels {
    outcome: Word,
}

/// The class of an answer over HTTP: `2xx`, `4xx` or `5xx`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    class: Word,
}

/// A label's value that is part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// Counts of one node.
pub struct Meters {
    registry: Registry,
    batches: Family<BatchLabels, Counter>,
    batch_bytes: Counter<u64, AtomicU64>,
    acknowledge: Histogram,
    http: Family<HttpLabels, Counter>,
}

impl Default for Meters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cortado");
        let meters = Self {
            batches: Family::default(),
            batch_bytes: Counter::default(),
            acknowledge: Histogram::new(ACKNOWLEDGE),
            http: Family::default(),
            registry: Registry::default(),
        };
        let help = "Batches of clients that this node has answered";
        registry.register("batches", help, meters.batches.clone());
        // From the start, so that the first one is seen as an increase.
        for outcome in ["durable", "retry", "refused"] {
            drop(meters.batches.get_or_create(&BatchLabels { outcome: Word(outcome) }));
        }
        let help = "Size of the batches that are durable";
        registry.register_with_unit("batch_durable", help, Unit::Bytes, meters.batch_bytes.clone());
        let help = "Time from a batch's arrival to its acknowledgement";
        registry.register_with_unit(
            "batch_acknowledge",
            help,
            Unit::Seconds,
            meters.acknowledge.clone(),
        );
        let help = "Answers over HTTP, by class of their status";
        registry.register("http_answers", help, meters.http.clone());
        Self { registry, ..meters }
    }
}

impl Meters {
    /// A batch of so many bytes was answered.
    pub fn batch(&self, outcome: &'static str, bytes: usize, took: Duration) {
        self.batches.get_or_create(&BatchLabels { outcome: Word(outcome) }).inc();
        if outcome == "durable" {
            self.batch_bytes.inc_by(bytes as u64);
            self.acknowledge.observe(took.as_secs_f64());
        }
    }

    /// A request over HTTP was answered.
    pub fn http(&self, status: u16) {
        let class = match status {
            0..=399 => "2xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http.get_or_create(&HttpLabels { class: Word(class) }).inc();
    }

    /// All counts.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
