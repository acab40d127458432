//! How a stream stands, as text.

use cortado_protocol::stream::{PublisherStatus, StreamStatus, WebhookStatus};
use cortado_stream::time_text;

use super::output::{grouped, table};

/// The text of `events status`.
pub(super) fn status(status: &StreamStatus) -> String {
    let state = match (status.ended, status.stopping) {
        (true, _) => "ended",
        (false, true) => "is to end",
        (false, false) => "runs",
    };
    let watermark = match status.watermark_ms {
        None => "none yet".to_owned(),
        Some(i64::MAX) => "no publisher is waited for".to_owned(),
        Some(ms) => time_text(ms),
    };
    let events = status.events;
    let mut text = format!(
        "the stream {state}\nwatermark: {watermark}\nwindows: {} open, {} closed, {} rows published\n\
         events: {} received, {} counted, {} duplicates, {} dead letters, {} too late for retired \
         windows, {} in open windows\n",
        status.open_windows,
        status.closed_windows,
        status.published,
        grouped(events.received),
        grouped(events.counted),
        grouped(events.duplicates),
        grouped(events.dead),
        grouped(events.retired),
        grouped(events.open),
    );
    if let Some(retired) = &status.retired {
        let before = time_text(retired.before_ms);
        text.push_str(&format!("retired: windows that end by {before}; they get no revision\n"));
    }
    for of in &status.webhooks {
        let WebhookStatus { output, webhook, delivered, failed, waiting, error } = of;
        let error = error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
        text.push_str(&format!(
            "webhook of {output}: {webhook}: {} rows delivered, {} failed, {} waiting{error}\n",
            grouped(*delivered),
            grouped(*failed),
            grouped(*waiting)
        ));
    }
    if let Some(waits) = &status.waits_for {
        text.push_str(&format!("it waits: {waits}\n"));
    }
    if status.publishers.is_empty() {
        return text;
    }
    let row = |of: &PublisherStatus| {
        let state = match of {
            _ if of.sealed.is_some() => "sealed",
            _ if of.ended => "ended",
            _ if of.beyond_gap > 0 => "has a gap",
            _ if of.idle => "idle",
            _ => "open",
        };
        let watermark = match of.watermark_ms {
            None | Some(i64::MAX) => "-".to_owned(),
            Some(ms) => time_text(ms),
        };
        let name = match of.publisher.generation {
            0 => of.publisher.name.clone(),
            generation => format!("{} ({generation})", of.publisher.name),
        };
        vec![
            name,
            state.into(),
            grouped(of.prefix),
            grouped(of.events),
            grouped(of.dead),
            watermark,
        ]
    };
    let rows = status.publishers.iter().map(row).collect();
    text.push_str(&table(
        &["PUBLISHER", "STATE", "BATCHES", "EVENTS", "DEAD", "WATERMARK"],
        &[2, 3, 4],
        rows,
    ));
    text
}
