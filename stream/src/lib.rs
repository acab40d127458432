//! What a stream computes: its plan, the validation of events, their facts, windows and outputs. No
//! I/O, no clock.
//!
//! The path of an event: [`map_events`] validates the lines of a batch and turns them into deltas,
//! one per slot; the slot of an event is a hash of its id, so that all copies of an event meet.
//! [`WindowFold`] folds what a slot's deltas hold of some windows. [`publish`] puts the slots'
//! parts together, proves that nothing is missing, and makes the rows that readers get.
//!
//! What is published depends on the *cut* only: the batches that are included. The order in which
//! they arrived, were mapped or folded has no effect.

mod alerts;
mod cut;
mod delivery;
mod event;
mod fold;
mod ids;
mod map;
mod outputs;
mod plan;
mod recount;
mod retirement;
mod rows;
mod schema;
mod summary;
mod texts;
mod time;

pub use alerts::Recent;
pub use cut::Cut;
pub use delivery::{failed_row, key_of};
pub use event::stored_events;
pub use fold::{Wanted, WantedWindow, WindowFold};
pub use ids::{IdIndex, IdSpan};
pub use map::map_events;
pub use outputs::{
    Fresh, Known, Made, Mismatch, OutputBatch, OutputRow, PublishedWindow, Span, Touch, publish,
};
pub use plan::{PlanError, Retry, StreamPlan, Webhook, WindowKey};
pub use recount::{Comparison, Difference, NotValid, Recount, Recounted, RowAt, metric_ids};
pub use retirement::{Checkpoint, GoneOutput, GoneSource, GoneSpan};
pub use schema::{SchemaError, SchemaSet};
pub use summary::{DeadLetter, Kind, Summary, WindowCount};
pub use texts::{Interned, Texts};
pub use time::{parse_time, time_text};

/// The plan of the events of public safety.
pub const EVENTS: &str = include_str!("../../plans/events.toml");
/// The schemas of the events of public safety: name and text of each file.
pub const EVENTS_SCHEMAS: [(&str, &str); 4] = [
    ("envelope.json", include_str!("../../data/schemas/envelope.json")),
    ("migration.case-1.0.json", include_str!("../../data/schemas/migration.case-1.0.json")),
    ("security.incident-1.0.json", include_str!("../../data/schemas/security.incident-1.0.json")),
    (
        "survey.victimization-1.0.json",
        include_str!("../../data/schemas/survey.victimization-1.0.json"),
    ),
];
