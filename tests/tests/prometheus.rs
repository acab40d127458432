//! Alerts and dashboard name metrics that nodes have, every alert has a case, and promtool accepts
//! the files.
//!
//! Where promtool is not installed (Debian package `prometheus`), the last one prints that it was not
//! checked.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const CASES: &str = include_str!("../../deploy/prometheus/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/dashboard.json");
const FIGURES: &str = include_str!("../../node/src/http/metrics.rs");
const METERS: &str = include_str!("../../node/src/meters.rs");

/// Calls that give a metric, and the suffixes that its name gets.
const CALLS: [(&str, &str, &[&str]); 8] = [
    (FIGURES, "sheet.one(", &[""]),
    (FIGURES, "sheet.set(", &[""]),
    (FIGURES, "sheet.real(", &[""]),
    (FIGURES, "sheet.count(", &["_total"]),
    (FIGURES, "sheet.real_count(", &["_total"]),
    (FIGURES, "sheet.histogram(", &HISTOGRAM),
    (METERS, "registry.register(", &["_total"]),
    (METERS, "registry.register_with_unit(", &[]),
];
const HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The names in the quotes that follow a call, and what stands behind them.
fn calls<'s>(source: &'s str, call: &'s str) -> impl Iterator<Item = (&'s str, &'s str)> {
    source.split(call).skip(1).map(|rest| {
        let name = rest.trim_start().strip_prefix('"').unwrap();
        name.split_once('"').unwrap()
    })
}

/// The names of all metrics of a node, as Prometheus sees them.
fn metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (source, call, suffixes) in CALLS {
        for (name, rest) in calls(source, call) {
            // What the system says of the process stands in one function, the last one.
            let is_of_process =
                FIGURES.split_once("fn process(").unwrap().1.contains(&format!("\"{name}\""));
            let prefix = if source == FIGURES && is_of_process { "process" } else { "cortado" };
            let arguments = rest.split_once(");").unwrap().0;
            let with_unit: &[&str] = match arguments {
                _ if !suffixes.is_empty() => suffixes,
                _ if arguments.contains("Unit::Bytes") => &["_bytes_total"],
                _ => {
                    assert!(
                        arguments.contains("Unit::Seconds"),
                        "{name}: a unit without a suffix here"
                    );
                    &["_seconds_bucket", "_seconds_sum", "_seconds_count"]
                }
            };
            names.extend(with_unit.iter().map(|suffix| format!("{prefix}_{name}{suffix}")));
        }
    }
    names
}

/// The words of an expression that look like metrics of a node.
fn words(text: &str) -> BTreeSet<&str> {
    let words = text.split(|of: char| !of.is_ascii_alphanumeric() && of != '_' && of != ':');
    words.filter(|word| word.starts_with("cortado_") || word.starts_with("process_")).collect()
}

/// The expressions of the alerts, with the rest of their rules; comments and annotations are prose.
fn expressions_of_alerts() -> impl Iterator<Item = &'static str> {
    ALERTS.split("expr:").skip(1).map(|rule| rule.split_once("annotations:").unwrap().0)
}

/// All texts under a key, at any depth.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|field| texts(field, key, found));
        }
        Value::Array(all) => all.iter().for_each(|one| texts(one, key, found)),
        _ => {}
    }
}

fn alerts() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn alerts_name_only_metrics_that_nodes_have() {
    let known = metrics();
    // One of each kind.
    for name in [
        "cortado_members",
        "cortado_refused_total",
        "cortado_log_sync_seconds_bucket",
        "cortado_batches_total",
        "cortado_batch_durable_bytes_total",
        "cortado_batch_acknowledge_seconds_sum",
        "cortado_stream_watermark_lag_seconds",
        "process_cpu_seconds_total",
        "process_open_fds",
    ] {
        assert!(known.contains(name), "{name} is not in {known:?}");
    }
    assert!(expressions_of_alerts().count() >= alerts().len());
    for expression in expressions_of_alerts() {
        for name in words(expression) {
            assert!(known.contains(name), "alerts.yml: no node has the metric {name}");
        }
    }
}

#[test]
fn the_dashboard_shows_all_metrics_that_nodes_have_and_no_other() {
    let known = metrics();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut expressions = Vec::new();
    for key in ["expr", "query", "definition"] {
        texts(&dashboard, key, &mut expressions);
    }
    let shown: BTreeSet<_> = expressions.iter().copied().flat_map(words).collect();
    for name in &shown {
        assert!(known.contains(*name), "dashboard.json: no node has the metric {name}");
    }
    let missed: Vec<_> = known.iter().filter(|name| !shown.contains(name.as_str())).collect();
    assert!(missed.is_empty(), "no panel shows {missed:?}");
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    assert!(!alerts().is_empty());
    for alert in alerts() {
        let of = format!("alertname=\"{alert}\"");
        let outcomes: Vec<_> = CASES
            .lines()
            .collect::<Vec<_>>()
            .windows(3)
            .filter(|lines| lines[0].contains(&of))
            .map(|lines| lines[2].trim().strip_prefix("exp_samples: ").unwrap() != "[]")
            .collect();
        assert!(outcomes.contains(&true), "alerts_test.yml: {alert} never fires");
        assert!(outcomes.contains(&false), "alerts_test.yml: {alert} always fires");
    }
}

#[test]
fn promtool_accepts_the_files_and_the_cases_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus");
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("promtool is not installed: the files for Prometheus are not checked");
        return;
    }
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    }
}
