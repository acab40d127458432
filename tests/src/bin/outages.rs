//! Kills nodes of a real cluster repeatedly and prints how long they were missed.

use clap::Parser;
use tests::outage::Outages;

/// Kill nodes (SIGKILL) again and again and measure how long they are missed; every result must be
/// exact. Fails loudly if one is not. Needs `cortado` and `cortado-node` beside this program.
#[derive(Debug, Parser)]
struct Flags {
    /// How often a node is killed.
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// Nodes killed at the same moment.
    #[arg(long, default_value_t = 1)]
    together: usize,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Timing of the failure detector: lan or shared.
    #[arg(long, default_value = "lan")]
    timing: String,
    /// Let the others start who was killed. Otherwise the failure detector is measured alone.
    #[arg(long)]
    reviving: bool,
}

fn main() {
    let Flags { kills, together, nodes, timing, reviving } = Flags::parse();
    println!("{}", Outages { kills, together, nodes, timing, reviving }.run());
}
