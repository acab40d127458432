//! The node's log, on standard error. It never stops or ends a node: not when its reader has gone
//! or does not read, nor when the disk is full. A separate thread writes the lines; lines beyond
//! its queue are dropped and counted.

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
/// Environment variable that overrides the filter of the configuration.
const VARIABLE: &str = "CORTADO_LOG";

/// Time limit for [`last_words`].
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes a text to standard error before the process ends. It does not wait for queued lines, nor
/// for a reader that does not read.
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

/// The log of this process. Dropping it writes the queued lines, if that is possible.
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    dropped: ErrorCounter,
    told: AtomicUsize,
    _writer: WorkerGuard,
}

impl Log {
    /// Starts the log with the filter of the environment, or `info`.
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
        // A panic ends the process, so the hook waits for no reader.
        std::panic::set_hook(Box::new(|panic| last_words(panic.to_string())));
        Self { filter: handle, dropped, told: AtomicUsize::new(0), _writer: guard }
    }

    /// Applies the filter of the configuration, unless the environment sets one.
    pub fn follow(&self, wanted: &str) {
        if std::env::var_os(VARIABLE).is_some() {
            return;
        }
        // The form of the filter was checked when the configuration was read.
        if let Ok(filter) = wanted.parse::<EnvFilter>()
            && let Err(error) = self.filter.reload(filter)
        {
            tracing::error!(%error, "can't change what is logged");
        }
    }

    /// Logs the number of dropped lines if it has grown.
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
