//! `/metrics`: counts and figures in the text format of Prometheus.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use cortado_membership::MemberState;
use cortado_protocol::PROTOCOL_VERSION;
use cortado_protocol::stream::StreamStatus;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::answer::{Answer, Refused};
use super::cache::SHORT;
use super::figures::Sheet;
use super::site::{Site, Started};
use crate::clock::unix_ms;
use crate::driver::Snapshot;
use crate::machine::Process;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// How long the node's loop may take to give its figures; the others are given without them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts and figures of this node, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let of = Arc::clone(&site);
    let ask = async move { Ok(Answer::new(TEXT, text(&of).await.into())) };
    Ok(site.cache.answers.get("metrics", SHORT, ask).await?.to(&headers))
}

async fn text(site: &Site) -> String {
    let mut sheet = Sheet::default();
    node(site, &mut sheet);
    if let Some(started) = site.parts() {
        members(started, &mut sheet);
        log(started, &mut sheet).await;
        let snapshot = snapshot(started).await;
        sheet.one(
            "loop_answers",
            "Whether the node's loop gave its figures in time",
            snapshot.is_some(),
        );
        if let Some(snapshot) = snapshot {
            figures(&snapshot, &mut sheet);
            for (name, status) in &snapshot.figures.streams {
                stream(name, status, &mut sheet);
            }
        }
    }
    let mut text = String::new();
    let plain = Registry::default();
    for registry in [site.meters.registry(), &sheet.registry("cortado"), &process(plain)] {
        // Writing to memory does not fail.
        let _ = prometheus_text::encode(&mut text, registry);
    }
    text
}

fn node(site: &Site, sheet: &mut Sheet) {
    let help = "What runs here; always 1";
    let build = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("revision", env!("CORTADO_REVISION").to_owned()),
        ("protocol", PROTOCOL_VERSION.to_string()),
        ("node", site.node.to_string()),
    ];
    sheet.set("build_info", help, &build, 1);
    let help = "What this node saw happen in the cluster";
    for (event, count) in site.history.counts() {
        sheet.count("happenings", help, &[("event", event.to_owned())], count);
    }
    let help = "Open HTTP connections";
    sheet.one("http_connections", help, site.connections());
}

fn members(started: &Started, sheet: &mut Sheet) {
    let view = started.views.borrow();
    let of = |state: &str| {
        view.members.iter().filter(|member| name_of(&member.state) == state).count() as u64
    };
    for state in ["alive", "ill", "draining", "down"] {
        let help = "Members by state, as this node sees them";
        sheet.set("members", help, &[("state", state.to_owned())], of(state));
    }
    for member in &view.members {
        let MemberState::Ill(ill) = &member.state else { continue };
        let illness = serde_json::to_value(ill.illness).ok();
        let illness = illness.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
        let labels = [("member", member.identity.id.to_string()), ("illness", illness.to_owned())];
        sheet.set("member_ill", "Members that are ill", &labels, 1);
    }
    let lead = started.leaders.borrow();
    if let Some(leader) = lead.leader {
        let labels = [("supervisor", leader.to_string())];
        sheet.set("supervisor_term", "The supervisor, and its term", &labels, lead.term);
    }
}

const fn name_of(state: &MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Draining => "draining",
        MemberState::Down => "down",
        MemberState::Ill(_) => "ill",
    }
}

async fn log(started: &Started, sheet: &mut Sheet) {
    let (records, bytes) = started.log.written();
    sheet.count("log_records", "Records written to the log", &[], records);
    sheet.count("log_written_bytes", "Bytes written to the log", &[], bytes);
    let (classes, sum) = started.log.syncs();
    sheet.histogram(
        "log_sync_seconds",
        "Time until a group of records is on the disk",
        &classes,
        sum,
    );
    let folder = started.data.clone();
    // A disk that does not answer holds nobody else up.
    let look = tokio::task::spawn_blocking(move || (size_of(&folder), free_at(&folder)));
    if let Ok(Ok((size, free))) = tokio::time::timeout(PATIENCE, look).await {
        sheet.one("data_bytes", "Size of the files in the data folder", size);
        if let Some(free) = free {
            sheet.one("disk_free_bytes", "Free space where the data folder is", free);
        }
    }
}

/// The size of the files in a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Free space, if the system says.
fn free_at(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

async fn snapshot(started: &Started) -> Option<Snapshot> {
    let (sender, asked) = oneshot::channel();
    let ask = async {
        started.snapshots.send(sender).await.ok()?;
        asked.await.ok()
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}

fn figures(snapshot: &Snapshot, sheet: &mut Sheet) {
    let figures = &snapshot.figures;
    for state in ["queued", "uploading", "running", "finishing", "done", "failed", "cancelled"] {
        let jobs = figures.jobs.get(state).copied().unwrap_or_default();
        let help = "Jobs that this node coordinates, by state";
        sheet.set("jobs", help, &[("state", state.to_owned())], jobs);
    }
    sheet.one("jobs_held", "Jobs whose records are on this node's disk", figures.held);
    sheet.one("entries_replicating", "Entries on their way to enough disks", figures.replicating);
    sheet.one("batches_waiting", "Batches that wait until their job may run", figures.mapping);
    sheet.one("tasks", "Tasks of the workers that are under way or wait", figures.tasks);
    sheet.one("entries_moving", "Entries still to be moved to their owners", figures.moving);
    for (queue, length, limit) in snapshot.load {
        let labels = [("queue", queue.to_owned())];
        sheet.set("queue_length", "What waits in a queue", &labels, length as u64);
        sheet.set("queue_limit", "What may wait in a queue", &labels, limit as u64);
    }
    for ((port, kind), count) in &snapshot.refused {
        let help = "What was refused at a port, by kind";
        sheet.count(
            "refused",
            help,
            &[("port", (*port).to_owned()), ("kind", kind.clone())],
            *count,
        );
    }
}

/// Figures of a stream that this node coordinates.
fn stream(name: &str, status: &StreamStatus, sheet: &mut Sheet) {
    let with =
        |label: &'static str, value: &str| [("stream", name.to_owned()), (label, value.to_owned())];
    let events = &status.events;
    for (outcome, count) in [
        ("received", events.received),
        ("counted", events.counted),
        ("duplicate", events.duplicates),
        ("dead", events.dead),
        ("open", events.open),
        ("retired", events.retired),
    ] {
        let help = "Events of a stream, by what became of them";
        sheet.set("stream_events", help, &with("outcome", outcome), count);
    }
    for (state, count) in [("open", status.open_windows), ("closed", status.closed_windows)] {
        sheet.set("stream_windows", "Windows of a stream", &with("state", state), count);
    }
    let stream = [("stream", name.to_owned())];
    sheet.count("stream_rows", "Rows of windows that were published", &stream, status.published);
    if let Some(watermark_ms) = status.watermark_ms.filter(|ms| *ms != i64::MAX) {
        let now = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        let lag = now.saturating_sub(watermark_ms) as f64 / 1000.0;
        sheet.real("stream_watermark_lag_seconds", "How far the watermark is behind", &stream, lag);
    }
    let publishers = &status.publishers;
    let of = |is: fn(&&cortado_protocol::stream::PublisherStatus) -> bool| {
        publishers.iter().filter(is).count() as u64
    };
    for (state, count) in [
        ("open", of(|p| !p.ended && !p.idle && p.beyond_gap == 0)),
        ("gap", of(|p| !p.ended && p.beyond_gap > 0)),
        ("idle", of(|p| !p.ended && p.idle && p.beyond_gap == 0)),
        ("ended", of(|p| p.ended)),
    ] {
        sheet.set("stream_publishers", "Publishers of a stream", &with("state", state), count);
    }
    for webhook in &status.webhooks {
        for (outcome, count) in [
            ("delivered", webhook.delivered),
            ("failed", webhook.failed),
            ("waiting", webhook.waiting),
        ] {
            let [stream, outcome] = with("outcome", outcome);
            let labels = [stream, ("output", webhook.output.clone()), outcome];
            sheet.set("stream_webhook_rows", "Rows for webhooks", &labels, count);
        }
    }
}

/// What the system says of this process.
fn process(mut registry: Registry) -> Registry {
    let Some(process) = Process::now() else { return registry };
    let mut sheet = Sheet::default();
    sheet.real_count("cpu_seconds", "Processor time", process.cpu.as_secs_f64());
    sheet.one("resident_memory_bytes", "Resident memory", process.resident);
    sheet.one("open_fds", "Open file descriptors", process.files);
    sheet.one("threads", "Threads", process.threads);
    registry = sheet.registry("process");
    registry
}
