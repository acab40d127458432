//! A sheet of figures of one moment, by name and labels.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::time::Duration;

use cortado_log::SYNC_CLASSES;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Labels of a figure.
type Labels = Vec<(&'static str, String)>;

/// The values of one figure.
#[derive(Clone, Debug)]
enum Values {
    Gauge(Vec<(Labels, f64)>),
    Counter(Vec<(Labels, f64)>),
    /// Counts by class, and the sum.
    Syncs([u64; SYNC_CLASSES.len() + 1], f64),
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub(super) struct Sheet(BTreeMap<&'static str, (&'static str, Values)>);

impl Sheet {
    fn put(&mut self, name: &'static str, help: &'static str, of: (Labels, f64), counts: bool) {
        let new = || match counts {
            true => (help, Values::Counter(Vec::new())),
            false => (help, Values::Gauge(Vec::new())),
        };
        match &mut self.0.entry(name).or_insert_with(new).1 {
            Values::Gauge(all) | Values::Counter(all) => all.push(of),
            Values::Syncs(..) => {}
        }
    }

    /// A figure without labels.
    pub(super) fn one(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.put(name, help, (Vec::new(), value.into().0), false);
    }

    /// One of several values of a figure.
    pub(super) fn set(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: u64,
    ) {
        self.put(name, help, (labels.to_vec(), value as f64), false);
    }

    /// The same, with a fraction.
    pub(super) fn real(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: f64,
    ) {
        self.put(name, help, (labels.to_vec(), value), false);
    }

    /// One of several counts that only grow.
    pub(super) fn count(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: u64,
    ) {
        self.put(name, help, (labels.to_vec(), value as f64), true);
    }

    /// A count with a fraction.
    pub(super) fn real_count(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.put(name, help, (Vec::new(), value), true);
    }

    /// Counts of syncs by how long they took.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        classes: &[u64; SYNC_CLASSES.len() + 1],
        sum: Duration,
    ) {
        self.0.insert(name, (help, Values::Syncs(*classes, sum.as_secs_f64())));
    }

    /// All of it, as a registry.
    pub(super) fn registry(&self, prefix: &str) -> Registry {
        let mut registry = Registry::with_prefix(prefix);
        registry.register_collector(Box::new(self.clone()));
        registry
    }
}

/// A figure's value.
pub(super) struct Value(f64);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self(value as f64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(f64::from(u8::from(value)))
    }
}

/// Labels, as the encoder wants them.
struct Encoded<'l>(&'l Labels);

impl EncodeLabelSet for Encoded<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        self.0.as_slice().encode(encoder)
    }
}

impl Collector for Sheet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for (name, (help, values)) in &self.0 {
            match values {
                Values::Gauge(all) => {
                    let mut metric =
                        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    for (labels, value) in all {
                        let labels = Encoded(labels);
                        ConstGauge::new(*value).encode(metric.encode_family(&labels)?)?;
                    }
                }
                Values::Counter(all) => {
                    let kind = MetricType::Counter;
                    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
                    for (labels, value) in all {
                        let labels = Encoded(labels);
                        ConstCounter::new(*value).encode(metric.encode_family(&labels)?)?;
                    }
                }
                Values::Syncs(classes, sum) => {
                    let kind = MetricType::Histogram;
                    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
                    let bounds = SYNC_CLASSES.iter().map(|micros| *micros as f64 / 1e6);
                    let buckets: Vec<_> = bounds.zip(classes.iter().copied()).collect();
                    let count = classes.iter().sum();
                    metric.encode_histogram::<NoLabelSet>(*sum, count, &buckets, None)?;
                }
            }
        }
        Ok(())
    }
}
