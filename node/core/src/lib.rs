//! The pure core of a Cortado node: what it decides, without sockets, files, threads or clocks.
//!
//! A [`Core`] is a state machine: [`Core::handle`] takes the time and one [`Input`] and appends
//! [`Effect`]s. The shell moves bytes, reads clocks and files, and runs [`task::Task`]s; a simulator
//! does the same with a virtual clock. Same inputs, same effects.
//!
//! The `router` leads each input through the *components*. A component has state of its own, takes one
//! event with `&Facts` and `&mut Outbox`, and knows no other component: what others have to hear, it
//! returns to the router.
//!
//! | component | decides |
//! |---|---|
//! | `link` | which message is new, which must be sent again |
//! | `mapper` | what becomes of a client's batch |
//! | `replicate` | when an entry is durable on W nodes |
//! | `transfer` | what a peer is sent that asks for entries |
//! | `handoff` | what moves where after a change of view |
//! | `slot_tasks` | when slots are complete, and closing their gaps |
//! | `coordination` | what a job needs next |
//! | `answers` | what a job's coordinator says to clients, and whether it knows enough for that |
//! | `streams` | which windows of a stream are closed, and what is published of them |
//! | `admission` | which jobs may run |
//! | `forwarding` | where a client's request goes |
//! | `expiry` | when a job is over |
//! | `completion` | whose coordinator is asked whether a job is done, so that its batches can be dropped |
//! | `saving` | which files beside the log have changed, and what waits for them |
//!
//! *Facts* are read by all and changed by the router alone:
//!
//! | fact | holds |
//! |---|---|
//! | `config` | what the node was told when it started |
//! | `ledger` | what this node's log has, and what is on its way into it |
//! | `jobs` | what jobs' own entries say, and what this node agreed to |
//! | `retention` | what this node has promised of the windows and publishers of streams, and what is retired |
//! | `placement` | who is there, and who owns what |
//! | `reach` | which members are passed over, because no data link to them works |
//! | `roster` | who belongs to the cluster, whether it answers or not |
//! | `peers` | who the peers are, and to whom a link is up |

mod admission;
mod answers;
mod completion;
mod config;
mod coordination;
mod effect;
mod expiry;
mod facts;
mod figures;
mod forwarding;
mod handoff;
mod input;
mod job;
mod jobs;
mod ledger;
mod link;
mod mapper;
mod memory;
mod outbox;
mod peers;
mod placement;
mod progress;
mod purpose;
mod reach;
mod reading;
mod record;
mod replicate;
mod retention;
mod roster;
mod router;
mod saving;
mod slot_round;
mod slot_tasks;
mod stream_log;
mod stream_task;
mod streams;
pub mod task;
mod transfer;
mod views;

pub use config::{Config, PlantedBug};
pub use effect::{Effect, StateFile};
pub use figures::Figures;
pub use input::Input;
pub use job::BoundPlan;
pub use memory::Budget;
pub use placement::Members;
pub use record::{Group, Located, MovedRecord, RecordRef};
pub use router::Core;
