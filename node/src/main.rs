//! The Cortado daemon: one binary for every role.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cortado_node::config::{Command, Flags, Settings};
use cortado_node::driver::Stop;
use cortado_node::health::{self, Health};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long tasks that nobody waits for may still take at the end.
const END_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.version {
        println!(
            "cortado-node {} ({}, protocol {})",
            env!("CARGO_PKG_VERSION"),
            env!("CORTADO_REVISION"),
            cortado_protocol::PROTOCOL_VERSION
        );
        return ExitCode::SUCCESS;
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("CORTADO_LOG")
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    if let (Some(Command::Health { ready }), Some(data)) = (flags.command, &flags.data) {
        return health(data, ready);
    }
    let settings = match Settings::load(&flags) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("cortado-node: {error:#}");
            return ExitCode::from(2);
        }
    };
    if let Some(Command::Health { ready }) = flags.command {
        return health(&settings.data, ready);
    }
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cortado-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints how the node with this data folder is.
fn health(data: &Path, ready: bool) -> ExitCode {
    let health = health::check(data);
    println!("{health}");
    match health {
        Health::Ok => ExitCode::SUCCESS,
        Health::Starting if !ready => ExitCode::SUCCESS,
        Health::Starting | Health::Ill(_) => ExitCode::FAILURE,
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    cortado_transport::keep_freed_memory();
    // The engine's threads have work for every core; more of these would only take turns with them.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(2))
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let (stop, stopped) = watch::channel(Stop::No);
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let node = cortado_node::start::run(settings, stopped);
        tokio::pin!(node);
        loop {
            tokio::select! {
                ended = &mut node => return ended,
                _ = term.recv() => {
                    // A second SIGTERM does not wait for the hand-over.
                    let again = *stop.borrow() == Stop::Drain;
                    stop.send_replace(if again { Stop::Now } else { Stop::Drain });
                }
                _ = interrupt.recv() => {
                    stop.send_replace(Stop::Now);
                }
            }
        }
    });
    // All that matters has ended. What still blocks is a name that can't be looked up, or the like.
    runtime.shutdown_timeout(END_LIMIT);
    ended
}
