//! The computation of jobs: schema, CSV decoding, plan, operators, ledger folds, receipt. Nodes and
//! clients use it. No I/O.
//!
//! The path of a job: [`csv::Cutter`] cuts files into batches. [`map_batch`] turns each batch into
//! deltas, one per slot. [`SlotFold`] folds a slot's deltas into its output. [`Final`] makes result
//! files from the outputs, and requests rows of reference tables, which [`LookupFold`] finds.
//! [`SummaryFold`] makes the [`Receipt`]. [`Recompute`] does all of this in one process.
//!
//! Invariant: the result depends on the input and the [`Plan`] only. Batches may be cut anywhere
//! between records, mapped on any node and folded in any order, over any number of slots.

mod accumulate;
mod batch;
mod budget;
mod calendar;
pub mod csv;
mod decode;
mod expr;
mod finish;
mod fold;
mod group;
mod issue;
mod lookup;
mod map;
mod names;
mod number;
mod plan;
mod receipt;
mod recompute;
mod rows;
mod summary;
mod tally;
mod types;
mod wire;

pub use budget::{MAP_BYTES, MapError, largest_of_stages, largest_query, mebi};
pub use finish::{Final, FinalError, FinalStep, LookupRequest, ReportFile};
pub use fold::SlotFold;
pub use lookup::LookupFold;
pub use map::{Mapped, map_batch};
pub use names::RECEIPT_FILE;
pub use plan::{ColumnSchema, HeaderError, Layout, Plan, PlanError, TableSchema, slot_of};
pub use receipt::{
    Durability, PlanReceipt, QueryReceipt, ReasonReceipt, Receipt, ResultReceipt, TableReceipt,
};
pub use recompute::Recompute;
pub use summary::SummaryFold;
pub use tally::Tally;
pub use types::{ColumnType, Type};
pub use wire::DeltaError;

/// A time in seconds since the Unix epoch, in the format of reports: `2024-01-01 10:06:50`.
#[must_use]
pub fn timestamp_text(unix_seconds: i64) -> String {
    let mut text = Vec::new();
    calendar::write_timestamp(unix_seconds.saturating_mul(calendar::MICROS_PER_SECOND), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The plan of the four reports of a coffee-shop chain.
pub const COFFEE: &str = include_str!("../../plans/coffee.toml");
