//! The arguments of `cortado events`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cortado_protocol::stream::{Cursor, Place};

/// `cortado events …`
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Make the stream; harmless if it runs already
    #[command(after_help = "\
Examples:
  cortado events start
  cortado events start plans/clicks.toml --stream clicks --schemas schemas")]
    Start {
        /// `events`, or the path of a plan file
        #[arg(default_value = "events")]
        plan: String,
        /// Folder of JSON Schemas (files that end in .json), instead of those that are built in
        #[arg(long, value_name = "DIR")]
        schemas: Option<PathBuf>,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// End the stream: it takes no new publisher, and its last windows close when all publishers have
    /// ended
    Stop {
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Publish events, synthetic ones or those of a file
    ///
    /// Returns when every event is on enough disks. A publisher that was killed goes on under its
    /// name, with the same options, and sends only what is missing.
    #[command(after_help = "\
Examples:
  cortado events publish --rate 1000 --for 60s
  cortado events publish --publisher north --duplicates 0.01 --invalid 0.01 --count 100000
  cortado events publish --publisher import --from old.ndjson --backfill
  tail -f app.log | cortado events publish --publisher app --from -")]
    Publish(PublishArguments),
    /// Print the rows of an output as they are published, one JSON object a line
    ///
    /// Each line carries a cursor. With --after CURSOR the output goes on behind that line, on any
    /// node.
    #[command(after_help = "\
Examples:
  cortado events tail analytics.window
  cortado events tail deadletter.validation --no-follow")]
    Tail {
        /// Name of the output
        output: String,
        /// Go on behind the line with this cursor
        #[arg(long, value_name = "CURSOR", value_parser = cursor)]
        after: Option<Cursor>,
        /// End when all rows that there are now were printed
        #[arg(long)]
        no_follow: bool,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Show publishers, windows and counts, and what the stream waits for
    Status {
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Put a new schema set in force: later batches are validated with it, earlier ones keep theirs
    Reload {
        /// Folder of JSON Schemas (files that end in .json), instead of those that are built in
        #[arg(long, value_name = "DIR")]
        schemas: Option<PathBuf>,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Show the daily metrics as they stand
    Metrics {
        /// Only rows in which this field has this text, such as region=norte; may be repeated
        #[arg(long = "where", value_name = "FIELD=TEXT", value_parser = pair)]
        wanted: Vec<(String, String)>,
        /// Only this region
        #[arg(long, value_name = "REGION")]
        region: Option<String>,
        /// Only this date
        #[arg(long, value_name = "YYYY-MM-DD")]
        date: Option<String>,
        /// Only this source
        #[arg(long, value_name = "SOURCE")]
        source: Option<String>,
        /// Name of the output, for streams with another plan
        #[arg(long, value_name = "OUTPUT", default_value = "metrics.daily")]
        output: String,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// List the events that are not counted, show one as it was sent, or send them again
    #[command(args_conflicts_with_subcommands = true)]
    Dead {
        #[command(subcommand)]
        command: Option<DeadCommand>,
        #[command(flatten)]
        list: DeadArguments,
    },
    /// Check that every event received is counted, a copy, a dead letter or in an open window, and that
    /// windows and metrics are what a second count of all events gives (exit code 4 if not)
    Check {
        /// Only add up the counts, without reading all events
        #[arg(long)]
        counts: bool,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Print the ids of the events that a metric counts, one a line
    #[command(after_help = "\
Examples:
  cortado events trace metrics.daily/2026-11-30/norte")]
    Trace {
        /// The `metric_id` of a row
        metric: String,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Write events, metrics and which event counts in which metric to a SQLite file, and query it
    ///
    /// A file that is there already is continued: each event is in it once.
    #[command(after_help = "\
Tables: events_in, metrics_out, trace (event_id, metric_id, contribution_type)
Examples:
  cortado events audit --out audit.db
  cortado events audit --out audit.db --follow
  cortado events audit --sql \"SELECT region, count(*) FROM events_in GROUP BY region\"")]
    Audit {
        /// The file
        #[arg(long, value_name = "FILE", required_unless_present_any = ["sql", "jsonl"])]
        out: Option<PathBuf>,
        /// Query the file after it was written; without --out, a temporary one
        #[arg(long, value_name = "SELECT", conflicts_with = "follow")]
        sql: Option<String>,
        /// Go on while the stream lives
        #[arg(long)]
        follow: bool,
        /// Write the valid events to this file instead, one JSON object a line
        #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "sql", "follow"])]
        jsonl: Option<PathBuf>,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Count windows a second time, from the events as they are kept, and print what differs from what was
    /// published (exit code 4 if anything does)
    #[command(after_help = "\
Examples:
  cortado events replay --from 2026-11-30T12:00:00Z --to 2026-11-30T13:00:00Z
  cortado events replay --publisher north --from-batch 100 --out windows.ndjson")]
    Replay {
        /// Windows that start at this time or later (RFC 3339)
        #[arg(long, value_name = "TIME", value_parser = time, required_unless_present = "publisher")]
        from: Option<i64>,
        /// Windows that start before this time
        #[arg(long, value_name = "TIME", value_parser = time)]
        to: Option<i64>,
        /// Windows that events of this publisher lie in
        #[arg(long, value_name = "NAME", value_parser = name, conflicts_with_all = ["from", "to"])]
        publisher: Option<String>,
        /// The first batch of the publisher's newest generation to look at
        #[arg(long, value_name = "N", default_value_t = 0, requires = "publisher")]
        from_batch: u64,
        /// Write the windows of the second count to this file, one JSON object a line
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        stream: StreamArgument,
    },
}

/// `cortado events dead …`
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// Print an event as it was sent, byte for byte
    Show {
        /// The `dead_id` of a dead letter
        #[arg(value_parser = place)]
        id: Place,
        #[command(flatten)]
        stream: StreamArgument,
    },
    /// Send dead letters through the stream again, after the schemas were mended
    ///
    /// Copies of events that count are dropped as always, so it can be repeated.
    Replay(DeadArguments),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(crate) struct DeadArguments {
    /// Only those whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) stream: StreamArgument,
}

/// Which stream.
#[derive(Debug, Args)]
pub(crate) struct StreamArgument {
    /// Name of the stream
    #[arg(long, value_name = "NAME", default_value = "events", value_parser = name)]
    pub(crate) stream: String,
}

/// Arguments of `events publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// Events in a second
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Publish for so long, such as 60s or 5m; without it and --count until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, conflicts_with = "count")]
    pub(crate) lasts: Option<f64>,
    /// Publish so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Seed of the random numbers: the same seed, the same events
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Chance that an event is sent a second time, such as 0.01
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = chance)]
    pub(crate) duplicates: f64,
    /// Seconds by which an event may be older than the one before
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = number)]
    pub(crate) out_of_order: f64,
    /// Chance that an event is not valid
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = chance)]
    pub(crate) invalid: f64,
    /// Chance that the next events are a burst: all at once, in one region and of one source
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = chance)]
    pub(crate) burst_probability: f64,
    /// Events of a burst
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) burst_size: u64,
    /// Name of the publisher, under which it can go on; without it one is made up
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) publisher: Option<String>,
    /// Import old data: windows do not wait for them
    #[arg(long)]
    pub(crate) backfill: bool,
    /// File of events, one JSON object a line, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "lasts"])]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) stream: StreamArgument,
}

fn place(text: &str) -> Result<Place, String> {
    Place::from_text(text).ok_or_else(|| "expected the dead_id of a dead letter".to_owned())
}

fn time(text: &str) -> Result<i64, String> {
    let expected = "expected a time such as 2026-11-30T12:00:00Z";
    cortado_stream::parse_time(text).ok_or_else(|| expected.to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(field, text)| (field.to_owned(), text.to_owned()));
    pair.ok_or_else(|| "expected FIELD=TEXT".to_owned())
}

fn cursor(text: &str) -> Result<Cursor, String> {
    Cursor::from_text(text)
        .ok_or_else(|| "expected the cursor of a line that was printed".to_owned())
}

fn name(text: &str) -> Result<String, String> {
    let most = cortado_protocol::limits::NAME_BYTES;
    let fine = !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    if fine { Ok(text.to_owned()) } else { Err(format!("expected 1 to {most} bytes")) }
}

fn number(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number));
    number.ok_or_else(|| "expected a number that is not negative".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = number(text)?;
    if (0.001..=1e7).contains(&rate) {
        return Ok(rate);
    }
    Err("expected 0.001 to 10000000 events in a second".to_owned())
}

fn chance(text: &str) -> Result<f64, String> {
    number(text).ok().filter(|chance| *chance <= 1.0).ok_or_else(|| "expected 0 to 1".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("expected a time such as 60s, 5m or 1h".to_owned()),
    };
    Ok(number(digits)? * unit)
}
