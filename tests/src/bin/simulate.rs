//! Runs simulations by seed. `simulate --seeds 0..1000` stops at the first seed that fails, and
//! prints which of its faults are needed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use cortado_core::PlantedBug;
use tests::sim::{Dials, Shrunk, World, shrink};

/// Run simulated clusters, one per seed.
#[derive(Debug, Parser)]
struct Flags {
    /// Seeds to run, for example 0..1000, or 7..8 for one of them again.
    #[arg(long, value_parser = parse_range)]
    seeds: Range<u64>,
    /// Of the faults drawn for a seed only these, by their place in its list: 0,3 or none.
    #[arg(long, value_parser = parse_places)]
    keep: Option<Places>,
    /// Put a fault into the program itself, to see whether it is found.
    #[arg(long, value_parser = parse_bug, value_name = "BUG")]
    plant: Option<PlantedBug>,
    /// Virtual seconds after which a run that has not ended has failed.
    #[arg(long, default_value_t = 180)]
    limit_seconds: u64,
    /// Write what the cores say to stderr.
    #[arg(long)]
    trace: bool,
}

#[derive(Clone, Debug)]
struct Places(Vec<usize>);

fn parse_places(text: &str) -> Result<Places, String> {
    if text == "none" {
        return Ok(Places(Vec::new()));
    }
    let places = text.split(',').map(str::parse).collect::<Result<_, _>>();
    places.map(Places).map_err(|_| format!("'{text}': expected places such as 0,3, or none"))
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("'{text}': expected FIRST..END, for example 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(expected)?;
    match (first.parse(), end.parse()) {
        (Ok(first), Ok(end)) if first < end => Ok(first..end),
        _ => Err(expected()),
    }
}

fn parse_bug(text: &str) -> Result<PlantedBug, String> {
    let named = PlantedBug::ALL.into_iter().find(|bug| format!("{bug:?}") == text);
    named.ok_or_else(|| format!("'{text}': expected one of {:?}", PlantedBug::ALL))
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
    let (mut acknowledged, mut traces) = (0, DefaultHasher::new());
    for seed in flags.seeds.clone() {
        let mut dials = Dials { planted: flags.plant, ..Dials::drawn(seed) };
        if let Some(Places(keep)) = &flags.keep {
            let kept = keep.iter().filter_map(|place| dials.faults.get(*place).copied());
            dials.faults = kept.collect();
        }
        let world = World::new(seed, dials.clone());
        let run = std::panic::AssertUnwindSafe(|| world.run(limit));
        match std::panic::catch_unwind(run).unwrap_or_else(|_| Err("a panic, see above".into())) {
            Ok(outcome) => {
                for (fault, count) in outcome.seen {
                    *seen.entry(fault).or_default() += count;
                }
                outcome.trace.hash(&mut traces);
                virtual_time += outcome.took;
                acknowledged += outcome.acknowledged;
            }
            Err(message) => {
                report(seed, &dials, &message, flags.keep.is_none().then_some(limit));
                return ExitCode::FAILURE;
            }
        }
    }
    let count = flags.seeds.end - flags.seeds.start;
    println!(
        "{count} seeds passed in {virtual_time:.0?} of virtual time, {acknowledged} batches \
         acknowledged; all that happened hashes to {:016x}; faults: {seen:?}",
        traces.finish()
    );
    ExitCode::SUCCESS
}

/// Prints the failure and the command that repeats it; shrinks the list of faults if time permits.
fn report(seed: u64, dials: &Dials, message: &str, shrink_within: Option<Duration>) {
    println!("seed {seed} failed at commit {}: {message}", commit());
    println!("{dials:?}");
    let again =
        format!("cargo run --release -p tests --bin simulate -- --seeds {seed}..{}", seed + 1);
    let Some(limit) = shrink_within else {
        println!("again: {again}");
        return;
    };
    // The message already contains the panic, so further attempts print none.
    std::panic::set_hook(Box::new(|_| ()));
    let shrunk = shrink(seed, dials, limit);
    let _ = std::panic::take_hook();
    match shrunk {
        Some(Shrunk { kept, message }) => {
            let needed: Vec<_> = kept.iter().map(|place| dials.faults[*place]).collect();
            println!("fewest faults: {needed:?}: {message}");
            let places: Vec<_> = kept.iter().map(ToString::to_string).collect();
            let places = if kept.is_empty() { "none".to_owned() } else { places.join(",") };
            println!("again, with a trace: {again} --trace --keep {places}");
        }
        None => println!("again: {again} (it did not fail a second time: a bug of the simulator)"),
    }
}

fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or("unknown".into(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}
