//! The program `cortado-node`: reads flags and settings, handles signals, and runs one node.

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

/// Pause between two checks for dropped log lines.
const LOG_LOOK: Duration = Duration::from_secs(60);
/// How long unfinished tasks may block the end of the process.
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

/// Writes the reason for the node's end to standard error. Write errors are ignored.
fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "cortado-node: {}", sentence(error));
}

/// Prints the health of the node with this data folder.
fn health(data: &Path, ready: bool) -> ExitCode {
    let health = health::check(data);
    println!("{health}");
    match health {
        Health::Ok => ExitCode::SUCCESS,
        Health::Starting if !ready => ExitCode::SUCCESS,
        Health::Starting | Health::Ill(_) => ExitCode::FAILURE,
    }
}

/// Reads configuration and certificates again, and applies the settings that can change while a
/// node runs.
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
    // The worker threads can use all cores, so a runtime thread per core would only compete with
    // them.
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
                    // A second SIGTERM ends the drain.
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
    // The node has ended. Only blocking calls, such as a name lookup, can still be running.
    runtime.shutdown_timeout(END_LIMIT);
    ended
}
