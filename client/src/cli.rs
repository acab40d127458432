//! The command `cortado`: reads its arguments, calls the library, prints, and turns errors into
//! exit codes.

mod args;
mod audit_command;
mod chaos_command;
mod cluster_commands;
mod dead_letters;
mod events_command;
mod events_text;
mod gen_command;
mod init_command;
mod job_commands;
mod job_text;
mod local_command;
mod log_command;
mod output;
mod progress_bar;
mod publish_command;
mod rejects;
mod run_commands;
mod second_count;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use args::{Arguments, Command, GlobalArguments};
use output::Output;

use crate::{Cluster, Error, Target};

/// Exit code of a usage error, the same as clap's.
const USAGE: u8 = 2;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are printed to standard output and are not errors; a closed output
            // is not one either.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    log_to_stderr();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::BrokenPipe) {
                report(&error);
            }
            error.exit_code().into()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let output = Output { json: arguments.global.json };
    match arguments.command {
        Command::Gen(command) => gen_command::run(command, output),
        Command::Init(arguments) => init_command::run(arguments, output),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "cortado", &mut text);
            output.bytes(&text)
        }
        command => {
            cortado_transport::keep_freed_memory();
            // Files are read by other threads.
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(cores.div_ceil(2))
                .enable_all()
                .build()
                .map_err(|source| Error::io("start", "the runtime".as_ref(), source))?;
            let result = runtime.block_on(run_online(command, &arguments.global, output));
            // Reader threads may hang on a slow disk; the command does not wait for them.
            runtime.shutdown_background();
            result
        }
    }
}

/// Runs a command that needs a cluster.
async fn run_online(
    command: Command,
    global: &GlobalArguments,
    output: Output,
) -> Result<(), Error> {
    if let Command::Local(command) = command {
        return local_command::run(command, global.cluster.as_deref(), output).await;
    }
    let cluster = Arc::new(Cluster::new(&Target {
        profile: global.cluster.clone(),
        addresses: global.connect.clone(),
        own_addresses: global.own_addresses,
        patience: Some(Duration::from_secs(global.timeout)),
        upload_rate: global.upload_rate,
    })?);
    match command {
        Command::Run(arguments) => run_commands::run(cluster, arguments, output).await,
        Command::Resume(arguments) => run_commands::resume(cluster, arguments, output).await,
        Command::Jobs => job_commands::jobs(&cluster, output).await,
        Command::Status { job } => job_commands::status(&cluster, job, output).await,
        Command::Cancel { job } => job_commands::cancel(&cluster, job, output).await,
        Command::Delete { job } => job_commands::delete(&cluster, job, output).await,
        Command::Result { job, out } => job_commands::result(&cluster, job, &out, output).await,
        Command::Verify { job, recompute } => {
            job_commands::verify(&cluster, job, recompute.as_deref(), output).await
        }
        Command::Explain { job } => job_commands::explain(&cluster, job, output).await,
        Command::Rejects { job, table } => {
            job_commands::rejects(&cluster, job, table.as_deref(), output).await
        }
        Command::Nodes => cluster_commands::nodes(&cluster, output).await,
        Command::Ring => cluster_commands::ring(&cluster, output).await,
        Command::Log { follow } => log_command::log(cluster, follow, output).await,
        Command::Drain { node } => cluster_commands::drain(&cluster, node, output).await,
        Command::Forget { node } => cluster_commands::forget(&cluster, node, output).await,
        Command::Events(command) => events_command::run(cluster, command, output).await,
        Command::Chaos(command) => {
            chaos_command::run(cluster, global.cluster.as_deref(), command, output).await
        }
        Command::Local(_) | Command::Gen(_) | Command::Init(_) | Command::Completions { .. } => {
            Ok(())
        }
    }
}

/// Prints an error to standard error, at the end of the command.
fn report(error: &Error) {
    let stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let prefix = if colour { "\u{1b}[1;31merror\u{1b}[0m:" } else { "error:" };
    output::note(&format!("{prefix} {error}"));
}

/// Prints diagnostics of the libraries to standard error, filtered by `CORTADO_LOG`.
fn log_to_stderr() {
    let filter = std::env::var("CORTADO_LOG").unwrap_or_else(|_| "error".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
