//! Random faults in a running cluster with clients: see scripts/chaos.sh.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tests::chaos::Chaos;

/// Kill, pause, cut and disturb nodes at random while clients upload; every result must be exact. Fails
/// loudly if one is not. Needs `cortado` beside this program, and a cluster whose nodes were started
/// with --allow-chaos and bring each other back.
#[derive(Debug, Parser)]
struct Flags {
    /// Profile directory of the cluster.
    #[arg(long, env = "CORTADO_CLUSTER")]
    cluster: PathBuf,
    /// How long trouble is made.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Clients at once.
    #[arg(long, default_value_t = 4)]
    clients: u64,
    /// Decides what happens to whom, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds of trouble.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() {
    let Flags { cluster, minutes, clients, seed, only } = Flags::parse();
    let duration = Duration::from_secs_f64(minutes * 60.0);
    println!("{}", Chaos { profile: cluster, duration, seed, clients, only }.run());
}
