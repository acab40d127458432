//! Progress on standard error: a bar on a terminal, otherwise a plain line every few seconds.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cortado_protocol::job::{JobState, JobStatus};
use indicatif::{ProgressBar as Bar, ProgressDrawTarget, ProgressStyle};

use super::output::{self, bytes, grouped};
use crate::{Observer, Progress};

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Draws progress.
pub(super) struct ProgressBar {
    bar: Option<Bar>,
    state: Mutex<State>,
}

struct State {
    total_bytes: u64,
    done_bytes: u64,
    sent_bytes: u64,
    sent_rows: u64,
    began: Instant,
    last_line: Option<Instant>,
    last_text: String,
}

impl ProgressBar {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = Bar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "{bar:16} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {wide_msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let state = State {
            total_bytes: 0,
            done_bytes: 0,
            sent_bytes: 0,
            sent_rows: 0,
            began: Instant::now(),
            last_line: None,
            last_text: String::new(),
        };
        Self { bar, state: Mutex::new(state) }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a message at once, with or without a bar.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Shows the newest state: beside the bar, or as a line when the next one is due.
    fn show(&self, state: &mut State, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(state.done_bytes);
            bar.set_message(text);
            return;
        }
        let due = state.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due && text != state.last_text {
            output::note(&text);
            state.last_line = Some(Instant::now());
            state.last_text = text;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rows_per_second(&self) -> u64 {
        (self.sent_rows as f64 / self.began.elapsed().as_secs_f64().max(0.001)) as u64
    }

    /// The progress of the upload as a line; a bar shows the bytes itself.
    fn upload_text(&self, has_bar: bool) -> String {
        let rows = format!("{} rows/s", grouped(self.rows_per_second()));
        if has_bar {
            return rows;
        }
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = self.sent_bytes as f64 / seconds;
        let left = self.total_bytes.saturating_sub(self.done_bytes);
        let eta = if rate < 1.0 { "?".into() } else { format!("{:.0} s", left as f64 / rate) };
        let percent = self.done_bytes.saturating_mul(100).checked_div(self.total_bytes);
        format!(
            "uploaded {} of {} ({} %), {}/s, {rows}, {eta} left",
            bytes(self.done_bytes),
            bytes(self.total_bytes),
            percent.unwrap_or(100),
            bytes(rate as u64),
        )
    }
}

impl Observer for ProgressBar {
    fn note(&self, progress: Progress<'_>) {
        let mut state = self.state();
        match progress {
            Progress::Job(_) => {}
            Progress::Upload { total_bytes, resumed_bytes } => {
                state.total_bytes = total_bytes;
                state.began = Instant::now();
                state.last_line = Some(state.began);
                if let Some(bar) = &self.bar {
                    bar.set_length(total_bytes);
                }
                if resumed_bytes > 0 {
                    self.say(&format!(
                        "resumed: {} of {} are there already and are compared, not sent",
                        bytes(resumed_bytes),
                        bytes(total_bytes)
                    ));
                }
            }
            Progress::Durable { bytes, rows, copies, replicas, .. } => {
                state.done_bytes += bytes;
                state.sent_bytes += bytes;
                state.sent_rows += rows;
                let text = state.upload_text(self.bar.is_some());
                self.show(&mut state, format!("{text}, fsync on {copies} of {replicas}"));
            }
            Progress::Known { bytes } => {
                state.done_bytes += bytes;
                let text = state.upload_text(self.bar.is_some());
                self.show(&mut state, text);
            }
            Progress::Waiting(reason) => self.show(&mut state, format!("waiting: {reason}")),
            Progress::Status(status) => {
                let text = status_text(status);
                self.show(&mut state, text);
            }
            Progress::Resend { table, batches } => {
                self.say(&format!("{table}: sending {batches} lost batches again"));
            }
        }
    }
}

/// The state of a job as a line.
fn status_text(status: &JobStatus) -> String {
    let stages = status
        .stages
        .iter()
        .map(|stage| format!("{} {}/{}", stage.name, stage.complete, stage.total))
        .collect::<Vec<_>>()
        .join(", ");
    let waits = status.waits_for.as_deref().unwrap_or_default();
    match &status.state {
        JobState::Queued { position } => format!("queued: place {position}"),
        JobState::Done => "done".into(),
        _ if stages.is_empty() => format!("finishing: {waits}"),
        _ if waits.is_empty() => format!("finishing: {stages}"),
        _ => format!("finishing: {stages}; {waits}"),
    }
}
