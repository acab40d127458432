//! The arguments of the command line. Doc comments here are what `--help` prints.

mod chaos;
mod events;
mod local;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cortado_protocol::{JobId, NodeId};

use super::rejects::MaxRejects;
use crate::Timing;
use crate::generate::coffee::Month;

pub(super) use chaos::{ChaosCommand, Group, Lasts};
pub(super) use events::{DeadArguments, DeadCommand, EventsCommand, PublishArguments};
pub(super) use local::{LocalCommand, NodeArguments, Reviver};

/// Version, git revision and protocol version.
pub(super) const VERSION: &str = version();

const fn version() -> &'static str {
    const {
        // A test compares the number with the protocol crate.
        concat!(env!("CARGO_PKG_VERSION"), " (", env!("CORTADO_REVISION"), ", protocol 11)")
    }
}

/// Count data exactly once on a cluster without a broker
///
/// Cortado uploads files to a cluster of equal nodes, computes the reports of a plan and proves by a
/// receipt that every row was counted once.
#[derive(Debug, Parser)]
#[command(
    name = "cortado",
    version = VERSION,
    propagate_version = true,
    after_help = "\
Examples:
  cortado local up --dir demo              five nodes on this machine
  cortado gen coffee --out data            a dataset to try it with
  cortado --cluster demo run coffee --data data --out results
  cortado --cluster demo verify JOB --recompute data
  cortado local down --dir demo --wipe

Exit codes:
  0 ok · 1 the job failed or was cancelled · 2 usage or bad input · 3 not found
  4 incomplete or mismatch · 5 cluster unreachable (safe to retry) · 130 interrupted"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: GlobalArguments,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the cluster is, and how to print.
#[derive(Clone, Debug, Args)]
pub(super) struct GlobalArguments {
    /// Profile directory of the cluster, as `cortado local up` writes one
    #[arg(long, global = true, value_name = "PROFILE", env = "CORTADO_CLUSTER")]
    pub(super) cluster: Option<PathBuf>,
    /// Addresses of nodes, instead of the profile's
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        env = "CORTADO_CONNECT"
    )]
    pub(super) connect: Vec<String>,
    /// Reach the nodes at their own addresses, not at those at which this host publishes them: for a
    /// client in a container beside them
    #[arg(long, global = true, hide_short_help = true, env = "CORTADO_OWN_ADDRESSES")]
    pub(super) own_addresses: bool,
    /// Seconds without any answer after which the cluster counts as unreachable
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        env = "CORTADO_TIMEOUT"
    )]
    pub(super) timeout: u64,
    /// Most bytes per second of an upload, for a network shared with others
    #[arg(
        long,
        global = true,
        value_name = "BYTES",
        hide_short_help = true,
        env = "CORTADO_UPLOAD_RATE"
    )]
    pub(super) upload_rate: Option<NonZeroU64>,
    /// Print JSON (see docs/cli-json.md)
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a cluster of node processes on this machine
    #[command(subcommand)]
    Local(LocalCommand),
    /// Make what nodes on other hosts or in containers need: authorities, certificates,
    /// configurations, and a profile
    #[command(after_help = "\
Example:
  cortado init --dir c --hosts 10.0.0.1,10.0.0.2,10.0.0.3")]
    Init(InitArguments),
    /// Make a dataset
    #[command(subcommand)]
    Gen(GenCommand),
    /// Upload a dataset, wait, and write the reports
    ///
    /// The job's id is printed first, on standard output. Ctrl-C detaches: the job stays in the
    /// cluster, and the command to go on is printed.
    #[command(after_help = "\
Examples:
  cortado run coffee --data data --out results
  cortado run plans/mine.toml --data data --detach")]
    Run(RunArguments),
    /// Go on with an interrupted upload, sending only what is missing
    #[command(after_help = "\
Example:
  cortado resume 01890a5d-ac96-774b-bcce-b302099a8057 --data data --out results")]
    Resume(ResumeArguments),
    /// List all jobs
    Jobs,
    /// Show how a job stands
    Status {
        /// The job's id
        job: JobId,
    },
    /// Cancel a job
    Cancel {
        /// The job's id
        job: JobId,
    },
    /// Forget a job that has ended, with its result and everything kept of it
    Delete {
        /// The job's id
        job: JobId,
    },
    /// Fetch a job's reports again, from any node
    Result {
        /// The job's id
        job: JobId,
        /// Folder for the reports
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Check a job's receipt; with the data, compute everything again and compare
    Verify {
        /// The job's id
        job: JobId,
        /// The dataset, to compute the reports again in this process
        #[arg(long, value_name = "DIR")]
        recompute: Option<PathBuf>,
    },
    /// Say in one sentence what a job waits for
    Explain {
        /// The job's id
        job: JobId,
    },
    /// Show the rows that were rejected, and why
    Rejects {
        /// The job's id
        job: JobId,
        /// Only this table
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
    },
    /// Show the members and how they stand
    Nodes,
    /// Show the owners of the slots, and moves in progress
    Ring,
    /// Show what happened: who came and went, who was elected, who was revived
    ///
    /// Each node tells what it saw since it started, up to 1,000 events.
    Log {
        /// Go on with what happens from now on
        #[arg(long, short)]
        follow: bool,
    },
    /// Count a stream of events: make it, publish, watch its windows
    #[command(subcommand)]
    Events(EventsCommand),
    /// Make trouble on purpose: kill nodes, cut their network, fill their disks
    ///
    /// For clusters that were started with --allow-chaos. Clients are never cut off, only nodes from
    /// each other. What lasts ends by itself.
    #[command(subcommand)]
    Chaos(ChaosCommand),
    /// Move everything off a node and let it leave
    Drain {
        /// The node's name
        node: NodeId,
    },
    /// Forget a dead node that will not come back: it leaves every list and count, for good
    Forget {
        /// The node's name
        node: NodeId,
    },
    /// Print a completion script
    #[command(after_help = "\
Example:
  cortado completions bash > ~/.local/share/bash-completion/completions/cortado")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// Folder to make; the profile lies in it
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// The cluster's name
    #[arg(long, default_value = "cortado")]
    pub(super) name: String,
    /// Number of nodes, if --hosts is not given: their hosts are named node-1, node-2, …
    #[arg(long, default_value_t = 5)]
    pub(super) nodes: u16,
    /// Names or addresses of the hosts, as the nodes reach each other
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(super) hosts: Vec<String>,
    /// Where clients reach the nodes, in the same order, if not at their hosts' port 7402
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub(super) published: Vec<SocketAddr>,
    /// Where browsers reach the nodes, in the same order. The nodes then answer everyone who reaches their
    /// HTTP port; otherwise only programs on their own machines
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub(super) published_http: Vec<SocketAddr>,
    /// The nodes' data folder on their hosts
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(super) data: PathBuf,
    /// Copies of each batch
    #[arg(long, default_value_t = 3)]
    pub(super) replicas: u8,
    /// Copies on disk before a batch is acknowledged
    #[arg(long, default_value_t = 2)]
    pub(super) min_copies: u8,
    /// Timing of the failure detector: shared is for small or shared machines
    #[arg(long, value_enum, default_value_t = Timing::Lan)]
    pub(super) timing: Timing,
    /// Who starts a node that has died
    #[arg(long, default_value = "none", value_parser = ["docker", "none"])]
    pub(super) reviver: String,
    /// Let `cortado chaos` disturb the network and the disks of the nodes
    #[arg(long, env = "CORTADO_ALLOW_CHAOS")]
    pub(super) allow_chaos: bool,
    /// Leave everything as it is if the cluster is in DIR already
    #[arg(long)]
    pub(super) once: bool,
    /// Group the nodes run with, if not as the owner of DIR: it may read their keys, and all files
    /// belong to that owner
    #[arg(long, value_name = "GID")]
    pub(super) node_group: Option<u32>,
    /// Tell clients to look for DIR here; for use in a container
    #[arg(long, value_name = "PATH")]
    pub(super) seen_as: Option<PathBuf>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// `coffee`, or the path of a plan file
    pub(super) plan: String,
    /// Folder of the dataset
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Folder for the reports
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Id of the job, a UUID of version 7; one that exists is resumed
    #[arg(long, value_name = "ID", value_parser = new_id)]
    pub(super) job: Option<JobId>,
    /// Do not wait for the reports once everything is uploaded
    #[arg(long)]
    pub(super) detach: bool,
    #[command(flatten)]
    pub(super) rejects: RejectArguments,
}

/// How many rejected rows are too many.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct RejectArguments {
    /// Fail (exit code 1) if more rows are rejected: a number, or a share such as 0.5%. The reports
    /// are written all the same. Without it only a table of which nothing was accepted fails
    #[arg(long, value_name = "N|N%")]
    pub(super) max_rejects: Option<MaxRejects>,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(super) struct ResumeArguments {
    /// The job's id
    pub(super) job: JobId,
    /// Folder of the dataset, the same as before
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Folder for the reports
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Do not wait for the reports once everything is uploaded
    #[arg(long)]
    pub(super) detach: bool,
    #[command(flatten)]
    pub(super) rejects: RejectArguments,
}

/// `cortado gen …`
#[derive(Debug, Subcommand)]
pub(super) enum GenCommand {
    /// The dataset of a coffee-shop chain: the same bytes for the same options
    #[command(after_help = "\
Examples:
  cortado gen coffee --out data
  cortado gen coffee --out small --months 202401 --transactions-per-month 1000 --users 500")]
    Coffee(CoffeeArguments),
}

/// Arguments of `gen coffee`.
#[derive(Debug, Args)]
pub(super) struct CoffeeArguments {
    /// Folder for the dataset
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Months of sales
    #[arg(long, value_name = "YYYYMM", value_delimiter = ',', default_value = "202401,202501")]
    pub(super) months: Vec<Month>,
    /// Transactions in each month
    #[arg(long, value_name = "COUNT", default_value_t = 620_000)]
    pub(super) transactions_per_month: u64,
    /// Registered customers
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    pub(super) users: u64,
    /// Seed of the random numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) seed: u64,
}

/// Parses an id for a new job.
fn new_id(text: &str) -> Result<JobId, String> {
    let id: JobId = text.parse().map_err(|error| format!("{error}"))?;
    if id.is_v7() {
        return Ok(id);
    }
    Err("it must be a UUID of version 7; without --job one is made".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_protocol() {
        let protocol = format!("protocol {})", cortado_protocol::PROTOCOL_VERSION);
        assert!(VERSION.ends_with(&protocol), "{VERSION}");
    }
}
