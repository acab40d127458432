//! The arguments of `cortado local`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cortado_protocol::NodeId;

use crate::{Error, Timing};

/// `cortado local …`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cortado local up --dir demo --nodes 5
  cortado --cluster demo nodes
  cortado local kill node-3 --dir demo
  cortado local start node-3 --dir demo
  cortado local down --dir demo --wipe")]
pub(in crate::cli) enum LocalCommand {
    /// Make a cluster, or start what does not run of an existing one
    Up {
        #[command(flatten)]
        dir: DirArgument,
        /// Number of nodes [default: 5; an existing cluster keeps its own]
        #[arg(long)]
        nodes: Option<u16>,
        /// Copies of each batch
        #[arg(long, default_value_t = 3)]
        replicas: u8,
        /// Copies on disk before a batch is acknowledged
        #[arg(long, default_value_t = 2)]
        min_copies: u8,
        /// Timing of the failure detector of a new cluster: shared is for small or shared machines
        #[arg(long, value_enum, default_value_t = Timing::Auto)]
        timing: Timing,
        /// Who starts a node that has died: its peers (process), or nobody (none)
        #[arg(long, value_enum, default_value_t = Reviver::Process, env = "CORTADO_REVIVER")]
        reviver: Reviver,
        /// Let `cortado chaos` disturb the network and the disks of a new cluster's nodes
        #[arg(long, env = "CORTADO_ALLOW_CHAOS")]
        allow_chaos: bool,
    },
    /// Stop all nodes; their data stays unless wiped
    Down {
        #[command(flatten)]
        dir: DirArgument,
        /// Delete the cluster, its data included
        #[arg(long)]
        wipe: bool,
    },
    /// Kill a node (SIGKILL); its peers start it again
    Kill(NodeArguments),
    /// Start a node again
    Start(NodeArguments),
    /// Stop a node (SIGTERM): it hands its data over, leaves, and stays down
    Stop(NodeArguments),
    /// Pause a node (SIGSTOP); its peers kill it and start it again if it is not resumed soon
    Pause(NodeArguments),
    /// Let a paused node go on (SIGCONT)
    Resume(NodeArguments),
    /// Delete a stopped node's data
    WipeDisk(NodeArguments),
    /// Add nodes
    Add {
        #[command(flatten)]
        dir: DirArgument,
        /// How many
        #[arg(long, default_value_t = 1)]
        count: u16,
    },
}

/// Who starts a node that has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Reviver {
    /// The elected one of its peers
    Process,
    /// Nobody
    None,
}

/// Which local cluster.
#[derive(Debug, Args)]
pub(in crate::cli) struct DirArgument {
    /// Folder of the cluster [default: the profile directory of --cluster, which it is too]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DirArgument {
    /// The folder that was given, or the one of the profile that clients use.
    pub(in crate::cli) fn or(&self, profile: Option<&Path>) -> Result<PathBuf, Error> {
        let dir = self.dir.as_deref().or(profile);
        dir.map(Path::to_owned).ok_or_else(|| {
            Error::BadInput(
                "which cluster? Give its folder with --dir, or with --cluster or in CORTADO_CLUSTER"
                    .into(),
            )
        })
    }
}

/// Which node of which local cluster.
#[derive(Debug, Args)]
pub(in crate::cli) struct NodeArguments {
    /// The node: node-1, node-2, …
    pub(in crate::cli) node: NodeId,
    #[command(flatten)]
    pub(in crate::cli) dir: DirArgument,
}
