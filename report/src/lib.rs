//! Reports: what commands print with `--json` and what nodes answer over HTTP. Field names are stable:
//! docs/cli-json.md lists them.

mod cluster;
mod event;
mod job;
mod metrics;
mod news;
mod stream;
mod text;

pub use cluster::{Cluster, Member, Move, Overdue, Ring, Slot, Supervisor};
pub use event::{Event, time_of};
pub use job::{File, Job, Rejected, Stage, Table};
pub use metrics::{MetricFilter, latest_metrics};
pub use news::{Line, News};
pub use stream::{Publisher, Stream, StreamName, newest, streams};
pub use text::text_of;
