//! The Cortado daemon: one binary for every role.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cortado_node::config::{Command, Flags, Settings, TlsFiles};
use cortado_node::driver::Stop;
use cortado_node::health::{self, Health};
use cortado_node::logging::Log;
use cortado_node::machine;
use cortado_node::words::sentence;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often it is looked whether lines of the log were dropped.
const LOG_LOOK: Duration = Duration::from_secs(60);
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
    let log = Log::start();
    if let (Some(Command::Health { ready }), Some(data)) = (flags.command, &flags.data) {
        return health(data, ready);
    }
    let mut settings = match Settings::load(&flags) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    log.follow(&settings.log);
    if let Some(Command::Health { ready }) = flags.command {
        return health(&settings.data, ready);
    }
    if let Err(error) = settings.find_own_address() {
        complain(&error);
        return ExitCode::from(2);
    }
    match run(&flags, settings, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says why the node ends. Whether anybody reads it changes nothing.
fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "cortado-node: {}", sentence(error));
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

/// Reads configuration, certificates and authorities again, as far as they can change while a node runs.
fn reload(flags: &Flags, log: &Log, reloads: &watch::Sender<Option<TlsFiles>>) {
    match Settings::load(flags) {
        Ok(settings) => {
            log.follow(&settings.log);
            reloads.send_replace(Some(settings.tls));
        }
        Err(error) => tracing::error!("SIGHUP: nothing was read again: {}", sentence(&error)),
    }
}

fn run(flags: &Flags, settings: Settings, log: &Log) -> anyhow::Result<()> {
    cortado_transport::keep_freed_memory();
    // The engine's threads have work for every core; more of these would only take turns with them.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(machine::cores().div_ceil(2))
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let (stop, stopped) = watch::channel(Stop::No);
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let (reloads, reloaded) = watch::channel(None);
        let mut look = tokio::time::interval(LOG_LOOK);
        let node = cortado_node::start::run(settings, stopped, reloaded);
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
                _ = hang_up.recv() => reload(flags, log, &reloads),
                _ = look.tick() => log.tell_dropped(),
            }
        }
    });
    // All that matters has ended. What still blocks is a name that can't be looked up, or the like.
    runtime.shutdown_timeout(END_LIMIT);
    ended
}
