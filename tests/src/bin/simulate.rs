//! Runs simulations by seed: `simulate --seeds 0..1000` stops at the first seed that fails.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::sim::{Dials, World};

/// Run simulated clusters, one per seed.
#[derive(Debug, Parser)]
struct Flags {
    /// Seeds to run, for example 0..1000, or 7..8 for one of them again.
    #[arg(long, value_parser = parse_range)]
    seeds: Range<u64>,
    /// Virtual seconds after which a run that has not ended has failed.
    #[arg(long, default_value_t = 180)]
    limit_seconds: u64,
    /// Write what the cores say to stderr.
    #[arg(long)]
    trace: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("'{text}': expected FIRST..END, for example 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(expected)?;
    match (first.parse(), end.parse()) {
        (Ok(first), Ok(end)) if first < end => Ok(first..end),
        _ => Err(expected()),
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.trace {
        let level = tracing_subscriber::EnvFilter::new("tests=trace,cortado_core=debug");
        let lines = tracing_subscriber::fmt().with_env_filter(level).without_time();
        lines.with_writer(std::io::stderr).init();
    }
    let limit = Duration::from_secs(flags.limit_seconds);
    let (mut seen, mut virtual_time) = (BTreeMap::<_, u32>::new(), Duration::ZERO);
    for seed in flags.seeds.clone() {
        let dials = Dials::drawn(seed);
        match World::new(seed, dials.clone()).run(limit) {
            Ok(outcome) => {
                for (fault, count) in outcome.seen {
                    *seen.entry(fault).or_default() += count;
                }
                virtual_time += outcome.took;
            }
            Err(message) => {
                println!("seed {seed} failed: {message}");
                println!("{dials:?}");
                println!(
                    "again: cargo run --release -p tests --bin simulate -- --seeds {seed}..{}",
                    seed + 1
                );
                return ExitCode::FAILURE;
            }
        }
    }
    let count = flags.seeds.end - flags.seeds.start;
    println!("{count} seeds passed in {virtual_time:.0?} of virtual time; faults: {seen:?}");
    ExitCode::SUCCESS
}
