//! The node's log, on standard error. Nothing that happens to it may stop or end a node: a reader that is
//! gone, one that does not read, a disk that is full. Lines are written by a thread of their own; those
//! that it can't take any more are dropped, and counted.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Lines that may wait to be written.
const LINES: usize = 8_192;
/// What is logged, over the configuration.
const VARIABLE: &str = "CORTADO_LOG";

/// How long the last words may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes what must be read although the process ends at once: past what waits, and without waiting for
/// a reader that does not read.
pub fn last_words(text: String) {
    let (said, saying) = mpsc::channel();
    let speak = move || {
        let _ = writeln!(std::io::stderr(), "{text}");
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(speak).is_ok() {
        let _ = saying.recv_timeout(LAST_WORDS);
    }
}

/// The log of this process. Ends, with what waits written if it can be, when it is dropped.
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    dropped: ErrorCounter,
    told: AtomicUsize,
    _writer: WorkerGuard,
}

impl Log {
    /// Starts it with what the environment wants, or `info`.
    ///
    /// # Panics
    /// If the process has a log already.
    #[must_use]
    pub fn start() -> Self {
        let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| "info".into());
        let (filter, handle) = reload::Layer::new(filter);
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LINES)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        let lines = fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .log_internal_errors(false)
            .with_writer(writer);
        tracing_subscriber::registry().with(filter).with(lines).init();
        // A panic ends the process; so that it does, nobody is waited for.
        std::panic::set_hook(Box::new(|panic| last_words(panic.to_string())));
        Self { filter: handle, dropped, told: AtomicUsize::new(0), _writer: guard }
    }

    /// Logs what the configuration wants from now on, unless the environment says something else.
    pub fn follow(&self, wanted: &str) {
        if std::env::var_os(VARIABLE).is_some() {
            return;
        }
        // Its form was checked when the configuration was read.
        if let Ok(filter) = wanted.parse::<EnvFilter>()
            && let Err(error) = self.filter.reload(filter)
        {
            tracing::error!(%error, "can't change what is logged");
        }
    }

    /// Says how many lines nobody will ever read, if there are new ones.
    pub fn tell_dropped(&self) {
        let dropped = self.dropped.dropped_lines();
        if self.told.swap(dropped, Ordering::Relaxed) != dropped {
            tracing::warn!(
                dropped,
                "lines of the log were dropped since the start: nobody reads it, or the disk is full"
            );
        }
    }
}
