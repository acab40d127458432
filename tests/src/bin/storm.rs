//! Kills random nodes of a real cluster with clients, for minutes: `storm --minutes 5`.

use std::time::Duration;

use clap::Parser;
use tests::storm::Storm;

/// Kill (SIGKILL) and restart a random node every few seconds while clients upload; every result must
/// be exact. Fails loudly if one is not. Needs `cortado` and `cortado-node` beside this program.
#[derive(Debug, Parser)]
struct Flags {
    /// How long nodes are killed.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Decides which nodes are killed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Clients at once.
    #[arg(long, default_value_t = 4)]
    clients: u64,
    /// Seconds from one kill to the next.
    #[arg(long, default_value_t = 3.0)]
    every: f64,
}

fn main() {
    let Flags { minutes, seed, nodes, clients, every } = Flags::parse();
    let duration = Duration::from_secs_f64(minutes * 60.0);
    let every = Duration::from_secs_f64(every);
    println!("{}", Storm { seed, duration, every, nodes, clients }.run());
}
