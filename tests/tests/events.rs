//! Streams of events on clusters of processes: what is published is compared with a model that
//! counts the same events in this process.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use cortado::generate::events::{Bursts, Event, EventOptions};
use serde_json::{Value, json};
use tests::cluster::{Cluster, path_text, short_windows, wait_for};

const WINDOW_MS: i64 = 500;

fn start(cluster: &Cluster) -> String {
    cluster.start_stream(&short_windows())
}

fn status(cluster: &Cluster) -> Value {
    cluster.json(&["events", "status"])
}

/// The last revision of each window, by its start.
fn last_revisions(rows: &[Value]) -> BTreeMap<String, Value> {
    let mut last = BTreeMap::new();
    for row in rows {
        let start = row["window_start"].as_str().unwrap().to_owned();
        let before = last.insert(start, row.clone());
        let revision = |row: &Value| row["revision"].as_u64().unwrap();
        assert!(before.is_none_or(|before| revision(&before) < revision(row)), "{row}");
    }
    last
}

/// What the model says of a window.
#[derive(Debug, Default, PartialEq)]
struct Model {
    stats: BTreeMap<String, BTreeMap<String, u64>>,
    ids: BTreeSet<String>,
    copies: u64,
}

/// Windows by their start, and the number of dead letters.
fn model(lines: impl Iterator<Item = (String, bool)>) -> (BTreeMap<i64, Model>, usize) {
    let (mut windows, mut dead): (BTreeMap<_, Model>, _) = (BTreeMap::new(), 0);
    for (line, is_valid) in lines {
        if !is_valid {
            dead += 1;
            continue;
        }
        let event: Value = serde_json::from_str(&line).unwrap();
        let text = |field: &str| event[field].as_str().unwrap().to_owned();
        let at = cortado_stream::parse_time(&text("timestamp")).unwrap();
        let window = windows.entry(at.div_euclid(WINDOW_MS) * WINDOW_MS).or_default();
        if window.ids.insert(text("event_id")) {
            let of_region = window.stats.entry(text("region")).or_default();
            *of_region.entry(text("source")).or_default() += 1;
        } else {
            window.copies += 1;
        }
    }
    (windows, dead)
}

fn compare(rows: &[Value], windows: &BTreeMap<i64, Model>) {
    let last = last_revisions(rows);
    let starts: Vec<_> = windows.keys().map(|start| cortado_stream::time_text(*start)).collect();
    assert_eq!(last.keys().collect::<BTreeSet<_>>(), starts.iter().collect::<BTreeSet<_>>());
    for (start, model) in windows {
        let row = &last[&cortado_stream::time_text(*start)];
        assert_eq!(row["total"], model.ids.len(), "{row}");
        assert_eq!(row["duplicates"], model.copies, "{row}");
        assert_eq!(row["stats_by_region"], json!(model.stats), "{row}");
        assert_eq!(row["event_ids"], json!(model.ids), "{row}");
    }
}

/// The daily metrics are the sums of the windows: at the end, and at every cut.
fn compare_days(rows: &[Value], days: &[Value], windows: &BTreeMap<i64, Model>) {
    let count = |row: &Value| {
        let parts = row["metrics"].as_object().unwrap().values();
        parts.map(|part| part["count"].as_u64().unwrap()).sum::<u64>()
    };
    let revision = |row: &Value| row["revision"].as_u64().unwrap();
    let cut = |row: &Value| row["cut"].as_str().unwrap().to_owned();
    let mut last: BTreeMap<&str, &Value> = BTreeMap::new();
    // In the order in which cuts contain each other.
    let cuts: BTreeSet<_> = rows.iter().map(|row| (revision(row), cut(row))).collect();
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, at) in cuts {
        for row in days.iter().filter(|row| cut(row) == at) {
            let known = last.entry(row["metric_id"].as_str().unwrap()).or_insert(row);
            if revision(row) > revision(known) {
                *known = row;
            }
        }
        for row in rows.iter().filter(|row| cut(row) == at) {
            totals.insert(row["window_start"].as_str().unwrap(), row["total"].as_u64().unwrap());
        }
        let of_days = last.values().map(|row| count(row)).sum::<u64>();
        assert_eq!(of_days, totals.values().sum::<u64>(), "at cut {at}");
    }
    let mut stats: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (region, sources) in windows.values().flat_map(|window| &window.stats) {
        for (source, n) in sources {
            *stats.entry((region, source)).or_default() += n;
        }
    }
    let mut told: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for row in last.values() {
        for (source, part) in row["metrics"].as_object().unwrap() {
            let of = (row["region"].as_str().unwrap(), source.as_str());
            *told.entry(of).or_default() += part["count"].as_u64().unwrap();
            for (name, counts) in part.as_object().unwrap().iter().filter(|(_, v)| v.is_object()) {
                let sum = counts.as_object().unwrap().values().map(|n| n.as_u64().unwrap());
                assert_eq!(sum.sum::<u64>(), part["count"], "{name} of {row}");
            }
        }
    }
    assert_eq!(told, stats);
    let added = days.iter().map(|row| row["input_event_count"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(added, stats.values().sum::<u64>());
}

/// Valid events, each once, a hundred in a second of event time.
fn valid_events(seed: u64) -> EventOptions {
    EventOptions {
        seed,
        publisher: "x".into(),
        start_ms: 1_790_000_000_000,
        rate: 100.0,
        duplicates: 0.0,
        invalid: 0.0,
        disorder_ms: 0,
        bursts: Bursts::default(),
    }
}

#[test]
fn every_event_counts_once_while_the_coordinator_and_a_publisher_are_killed() {
    let cluster = Cluster::up(5);
    let job = start(&cluster);
    const COUNT: u64 = 12_000;
    let arguments = [
        "events",
        "publish",
        "--publisher",
        "north",
        "--rate",
        "2000",
        "--count",
        "12000",
        "--duplicates",
        "0.05",
        "--invalid",
        "0.02",
        "--out-of-order",
        "0.2",
        "--seed",
        "7",
    ];
    let publisher = cluster.cortado(&arguments).spawn();
    let published = |least: u64| {
        wait_for("windows to be published", 30, || {
            let status = cluster.cortado(&["events", "status", "--json"]).run();
            let published = (status.code == Some(0)).then(|| status.json()["published"].as_u64());
            published.flatten().filter(|published| *published >= least)
        })
    };
    published(2);
    let file = path_text(&cluster.path("audit.db"));
    let audit = cluster.cortado(&["events", "audit", "--out", &file, "--follow"]).spawn();
    published(4);
    let _ = publisher.kill();
    let _ = audit.kill();
    cluster.kill(&cluster.coordinator(&job));
    // It goes on where it was, with the same options.
    cluster.cortado(&arguments).run().ok();
    wait_for("the publisher's end to be read", 20, || {
        let status = cluster.cortado(&["events", "status", "--json"]).run();
        let status = (status.code == Some(0)).then(|| status.json())?;
        (status["publishers"][0]["ended"] == true).then_some(())
    });
    // The same command once more is the next generation of the publisher, with later events.
    cluster.cortado(&arguments).run().ok();
    cluster.cortado(&["events", "stop"]).run().ok();
    wait_for("the stream to end", 30, || {
        let status = cluster.cortado(&["events", "status", "--json"]).run();
        (status.code == Some(0)).then(|| status.json()).filter(|status| status["ended"] == true)
    });
    let end = status(&cluster);
    let opened = |generation: usize| {
        let publisher = &end["publishers"][generation];
        assert_eq!(publisher["generation"], generation);
        publisher["opened_ms"].as_i64().unwrap()
    };
    let options = |generation| EventOptions {
        seed: 7,
        publisher: "north".into(),
        start_ms: opened(generation),
        rate: 2_000.0,
        duplicates: 0.05,
        invalid: 0.02,
        disorder_ms: 200,
        bursts: Bursts::default(),
    };
    let made = (0..2).map(options).flat_map(|options| {
        (0..COUNT).map(move |n| options.event(n)).map(|event| (event.line, event.is_valid))
    });
    let (windows, dead) = model(made);
    let all = cluster.rows("analytics.window");
    compare(&all, &windows);
    compare_days(&all, &cluster.rows("metrics.daily"), &windows);
    let letters = cluster.rows("deadletter.validation");
    let reasons = |row: &Value| row["reason"].as_str().unwrap().starts_with("conflict");
    let conflicts = letters.iter().filter(|row| reasons(row)).count();
    let ids: BTreeSet<_> = letters.iter().map(|row| row["dead_id"].to_string()).collect();
    assert_eq!((letters.len() - conflicts, ids.len()), (dead, letters.len()));
    compare_audit(&cluster, &file, &windows);
    assert_eq!(end["events"]["received"], 2 * COUNT);
    // Any node gives the same rows, from any cursor on.
    let cursor = all[all.len() / 2]["cursor"].as_str().unwrap();
    let node = cluster.nodes().into_iter().find(|node| {
        let address = node.client_addr().to_string();
        cluster.cortado(&["nodes", "--connect", &address, "--timeout", "2"]).run().code == Some(0)
    });
    let address = node.unwrap().client_addr().to_string();
    let rest = cluster
        .cortado(&["events", "tail", "analytics.window", "--no-follow"])
        .args(&["--after", cursor, "--connect", &address])
        .run()
        .ok()
        .json_lines();
    assert_eq!(rest, all[all.len() / 2 + 1..]);
}

/// An audit file that was begun before has every event once, and with metrics, traces, check and replay says
/// what the model says.
fn compare_audit(cluster: &Cluster, file: &str, windows: &BTreeMap<i64, Model>) {
    let counted = windows.values().map(|window| window.ids.len() as u64).sum::<u64>();
    let copies = windows.values().map(|window| window.copies).sum::<u64>();
    let audit = cluster.json(&["events", "audit", "--out", file]);
    assert_eq!(
        (&audit["counted"], &audit["duplicates"], &audit["lag"]),
        (&json!(counted), &json!(copies), &json!(0)),
        "{audit}"
    );
    let query = |sql: &str| cluster.json(&["events", "audit", "--out", file, "--sql", sql]);
    let traced = query(
        "SELECT metric_id, count(*) AS n FROM trace WHERE contribution_type = 'counted' GROUP BY 1",
    );
    let metrics = query(
        "SELECT metric_id, max(revision), metrics_json FROM metrics_out GROUP BY metric_id ORDER BY 1",
    );
    let sum = |row: &Value| {
        let parts: Value = serde_json::from_str(row["metrics_json"].as_str().unwrap()).unwrap();
        let parts = parts.as_object().unwrap().clone();
        let n = parts.values().map(|part| part["count"].as_u64().unwrap()).sum::<u64>();
        json!({ "metric_id": row["metric_id"], "n": n })
    };
    let sums: Vec<_> = metrics.as_array().unwrap().iter().map(sum).collect();
    assert_eq!(traced, json!(sums));
    // Every metric is traced to its events, in the file and without it.
    let ids = |row: &Value| {
        let id = row["metric_id"].as_str().unwrap();
        let traced = cluster.cortado(&["events", "trace", id]).run().ok().stdout;
        let of_metric = format!(
            "SELECT event_id FROM trace WHERE metric_id = '{id}' AND contribution_type = 'counted'
             ORDER BY 1"
        );
        let in_file = query(&of_metric);
        let in_file =
            in_file.as_array().unwrap().iter().map(|row| row["event_id"].as_str().unwrap());
        assert!(traced.lines().eq(in_file), "{id}");
        traced.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all: BTreeSet<_> = sums.iter().flat_map(ids).collect();
    let expected: BTreeSet<_> = windows.values().flat_map(|window| window.ids.clone()).collect();
    assert_eq!(all, expected);

    let check = cluster.json(&["events", "check"]);
    assert_eq!((&check["ok"], &check["recounted"]), (&json!(true), &json!(counted)));
    assert_eq!(check["windows"], windows.len());
    let out = path_text(&cluster.path("windows.ndjson"));
    let (from, end) = (windows.keys().nth(1).unwrap(), windows.keys().last().unwrap());
    let times = [*from, *end].map(cortado_stream::time_text);
    let arguments = ["events", "replay", "--from", &times[0], "--to", &times[1], "--out", &out];
    let replay = cluster.json(&arguments);
    assert_eq!(replay["windows"], windows.len() - 2);
    let text = std::fs::read_to_string(&out).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let totals: Vec<_> = rows.iter().map(|row| row["total"].as_u64().unwrap()).collect();
    let of_model = windows.range(*from..*end).map(|(_, window)| window.ids.len() as u64);
    assert!(of_model.eq(totals));
    let lines = path_text(&cluster.path("events.ndjson"));
    let written = cluster.json(&["events", "audit", "--jsonl", &lines]);
    assert_eq!(written["events"], counted + copies);
    assert_eq!(std::fs::read_to_string(&lines).unwrap().lines().count() as u64, counted + copies);

    let _ =
        cluster.cortado(&["events", "trace", "no/such"]).run().exits(3, &["there is no metric"]);
    let deletes = ["events", "audit", "--out", file, "--sql", "DELETE FROM events_in"];
    let _ = cluster.cortado(&deletes).run().exits(2, &["would write"]);
    let _ = cluster.cortado(&["events", "replay"]).run().exits(2, &["--from"]);
}

#[test]
fn late_events_of_a_file_make_a_revision_and_bad_lines_cost_themselves() {
    let cluster = Cluster::up(3);
    start(&cluster);
    let options = valid_events(3);
    let lines: Vec<_> = (0..400).map(|n| options.event(n).line).collect();
    let write = |name: &str, lines: &[String]| {
        let path = cluster.path(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path_text(&path)
    };
    let first: Vec<_> = lines.iter().step_by(2).cloned().collect();
    let mut second: Vec<_> = lines.iter().skip(1).step_by(2).cloned().collect();
    second.insert(7, "{\"event_id\":".to_owned());
    second.insert(
        50,
        first[0].replace("norte", "sur").replace("centro", "sur").replace("este", "sur"),
    );
    let (first, second) = (write("first.ndjson", &first), write("second.ndjson", &second));
    cluster.cortado(&["events", "publish", "--publisher", "a", "--from", &first]).run().ok();
    let closed = |least| {
        wait_for("the windows to be closed", 20, || {
            let rows = cluster.rows("analytics.window");
            (rows.len() >= least).then_some(rows)
        })
    };
    let before = closed(8);
    assert_eq!(before.iter().map(|row| row["total"].as_u64().unwrap()).sum::<u64>(), 200);
    let late = ["events", "publish", "--publisher", "b", "--from", &second, "--backfill"];
    let sent = cluster.cortado(&late).args(&["--json"]).run().ok().json();
    assert_eq!((&sent["events"], &sent["dead"]), (&json!(202), &json!(1)));
    let after = closed(before.len() + 8);
    let (windows, _) = model(lines.iter().map(|line| (line.clone(), true)));
    let last = last_revisions(&after);
    let totals = last.values().map(|row| row["total"].as_u64().unwrap()).sum::<u64>();
    assert_eq!((last.len(), totals), (windows.len(), 400));
    assert_eq!(last.values().map(|row| row["conflicts"].as_u64().unwrap()).sum::<u64>(), 1);
    let letters = cluster.rows("deadletter.validation");
    let reasons: Vec<_> = letters.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.starts_with("not a JSON object")));
    assert!(reasons.iter().any(|reason| reason.starts_with("conflict")));
    cluster.cortado(&["events", "check"]).run().ok();

    // A dead letter is there byte for byte; mended schemas and a replay bring events back.
    let bad = letters.iter().find(|row| row["reason"].as_str().unwrap().starts_with("not a"));
    let id = bad.unwrap()["dead_id"].as_str().unwrap();
    let shown = cluster.cortado(&["events", "dead", "show", id]).run().ok();
    assert_eq!(shown.stdout, "{\"event_id\":");
    let listed = cluster.cortado(&["events", "dead", "--reason", "conflict", "--json"]).run().ok();
    assert_eq!(listed.json_lines().len(), 1);
    let strange = options.event(1_000).line.replace("\"region\":\"", "\"region\":\"x");
    let strange = write("strange.ndjson", &[strange]);
    let sent = ["events", "publish", "--publisher", "s", "--backfill", "--from", &strange];
    assert_eq!(cluster.cortado(&sent).args(&["--json"]).run().ok().json()["dead"], 1);
    let schemas = cluster.path("schemas");
    let envelope = schemas.join("envelope.json");
    let text = std::fs::read_to_string(&envelope).unwrap();
    let mended = text.replace(
        "\"norte\",",
        "\"norte\", \"xnorte\", \"xsur\", \"xcentro\", \"xeste\", \"xoeste\",",
    );
    std::fs::write(&envelope, mended).unwrap();
    let schemas = path_text(&schemas);
    assert_eq!(cluster.json(&["events", "reload", "--schemas", &schemas])["schema_set"], 1);
    let replayed = wait_for("the dead letter to be published", 20, || {
        let replay = cluster.json(&["events", "dead", "replay", "--reason", "region"]);
        let replay = if replay["replayed"] == 0 {
            cluster.json(&["events", "dead", "replay", "--reason", "is not one of"])
        } else {
            replay
        };
        (replay["replayed"] == 1).then_some(replay)
    });
    assert_eq!(replayed["dead"], 0);
    wait_for("the event to count", 20, || {
        let rows = cluster.json(&["events", "metrics"]);
        rows.as_array()
            .unwrap()
            .iter()
            .any(|row| row["region"].as_str().unwrap().starts_with('x'))
            .then_some(())
    });
    cluster.cortado(&["events", "check"]).run().ok();

    // A name that has ended gets the next generation; other options under an open name are refused.
    let other = ["events", "publish", "--publisher", "a", "--from", &second];
    let copies = cluster.cortado(&other).args(&["--json"]).run().ok().json();
    assert_eq!(copies["events"], 202);
    let endless = cluster.cortado(&["events", "publish", "--publisher", "c"]).spawn();
    wait_for("a batch of c", 20, || {
        let status = status(&cluster);
        let of_c = status["publishers"].as_array().unwrap().iter().find(|p| p["name"] == "c")?;
        of_c["prefix"].as_u64().filter(|prefix| *prefix > 0)
    });
    let _ = endless.kill();
    let refused = cluster.cortado(&["events", "publish", "--publisher", "c", "--seed", "5"]).run();
    let _ = refused.exits(2, &["has sent other events before"]);
    let refused = cluster.cortado(&["events", "publish", "--publisher", "c", "--backfill"]).run();
    let _ = refused.exits(2, &["without --backfill"]);
}

/// Of events with one id at two times the earlier one counts, in whatever order they come: its window is
/// published with it, and that of the other one is published again without it.
#[test]
fn an_id_counts_once_although_its_events_lie_in_two_windows() {
    let cluster = Cluster::up(3);
    start(&cluster);
    let options = valid_events(5);
    let events: Vec<_> = (0..400).map(|n| options.event(n)).collect();
    let write = |name: &str, lines: &[String]| {
        let path = cluster.path(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path_text(&path)
    };
    let lines: Vec<_> = events.iter().map(|event| event.line.clone()).collect();
    let first = write("first.ndjson", &lines);
    cluster.cortado(&["events", "publish", "--publisher", "a", "--from", &first]).run().ok();
    let totals = |field: &str| {
        let last = last_revisions(&cluster.rows("analytics.window"));
        last.values().map(|row| row[field].as_u64().unwrap()).sum::<u64>()
    };
    wait_for("the windows to be closed", 20, || (totals("total") == 400).then_some(()));
    let at = |n: usize, by_ms: i64| {
        let Event { line, at_ms, .. } = &events[n];
        line.replace(&cortado_stream::time_text(*at_ms), &cortado_stream::time_text(at_ms + by_ms))
    };
    // One earlier by five windows, one later, one earlier by more than the horizon.
    let moved = [at(399, -5 * WINDOW_MS), at(3, 4 * WINDOW_MS), at(200, -700_000)];
    let late = write("late.ndjson", &moved);
    let late = ["events", "publish", "--publisher", "b", "--backfill", "--from", &late];
    cluster.cortado(&late).run().ok();
    wait_for("both contradictions", 20, || (totals("conflicts") == 2).then_some(()));
    assert_eq!(totals("total"), 401);
    let all = cluster.rows("analytics.window");
    let last = last_revisions(&all);
    let counted = |id: &str| {
        let has = |row: &&Value| row["event_ids"].as_array().unwrap().iter().any(|of| of == id);
        last.values()
            .filter(has)
            .map(|row| row["window_start"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let id = |n: usize| {
        let event: Value = serde_json::from_str(&events[n].line).unwrap();
        event["event_id"].as_str().unwrap().to_owned()
    };
    let window = |at_ms: i64| cortado_stream::time_text(at_ms.div_euclid(WINDOW_MS) * WINDOW_MS);
    assert_eq!(counted(&id(399)), [window(events[399].at_ms - 5 * WINDOW_MS)]);
    assert_eq!(counted(&id(3)), [window(events[3].at_ms)]);
    assert_eq!(counted(&id(200)).len(), 2, "ten minutes are the horizon");
    let letters = cluster.rows("deadletter.validation");
    let of: BTreeSet<_> = letters.iter().map(|row| row["event_id"].as_str().unwrap()).collect();
    assert_eq!(of, [&*id(3), &*id(399)].into_iter().collect());
    let checked = cluster.json(&["events", "check"]);
    assert_eq!((&checked["counted"], &checked["recounted"]), (&json!(401), &json!(401)));
    let file = path_text(&cluster.path("audit.db"));
    let counts = "SELECT contribution_type AS kind, count(*) AS n FROM events_in GROUP BY 1";
    let counts = cluster.cortado(&["events", "audit", "--out", &file, "--sql", counts, "--json"]);
    let counts = counts.run().ok().json();
    let expected = json!([{ "kind": "conflict", "n": 2 }, { "kind": "counted", "n": 401 }]);
    assert_eq!(counts, expected);
}

/// What comes through a pipe is sent batch by batch. After a kill the next generation goes on, and what was
/// acknowledged counts.
#[test]
fn a_publisher_that_reads_a_pipe_goes_on_after_a_kill() {
    let cluster = Cluster::up(3);
    start(&cluster);
    let options = valid_events(4);
    let arguments = ["events", "publish", "--publisher", "pipe", "--from", "-"];
    let (mut publisher, mut pipe) = cluster.cortado(&arguments).piped();
    let prefix = |least: u64| {
        wait_for("batches of the pipe", 20, || {
            let status = status(&cluster);
            let newest = status["publishers"].as_array().unwrap().last()?.clone();
            newest["events"].as_u64().filter(|events| *events >= least)
        })
    };
    for n in 0..20 {
        writeln!(pipe, "{}", options.event(n).line).unwrap();
        prefix(n + 1);
    }
    assert!(publisher.is_running());
    let _ = publisher.kill();
    drop(pipe);
    let (publisher, mut pipe) = cluster.cortado(&arguments).piped();
    // From the tenth on once more, as a program does that does not know what arrived.
    for n in 10..30 {
        writeln!(pipe, "{}", options.event(n).line).unwrap();
    }
    drop(pipe);
    let _ = publisher.wait().ok();
    cluster.cortado(&["events", "stop"]).run().ok();
    let tail = cluster.cortado(&["events", "tail", "analytics.window"]).run().ok().json_lines();
    let (windows, _) = model(
        (0..30)
            .map(|n| options.event(n).line)
            .chain((10..20).map(|n| options.event(n).line))
            .map(|line| (line, true)),
    );
    compare(&tail, &windows);
    let generations = status(&cluster)["publishers"].as_array().unwrap().len();
    assert_eq!(generations, 2);
}

#[test]
fn another_stream_has_other_windows_and_wrong_commands_say_what_to_do() {
    let cluster = Cluster::up(3);
    let missing = cluster.cortado(&["events", "status"]).run();
    let _ = missing.exits(3, &["there is no stream 'events'", "cortado events start"]);
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/../plans/clicks.toml");
    let coffee = concat!(env!("CARGO_MANIFEST_DIR"), "/../plans/coffee.toml");
    let wrong = cluster.cortado(&["events", "start", coffee]).run();
    let _ = wrong.exits(2, &["is no plan of a stream", "cortado run"]);
    let wrong = cluster.cortado(&["run", plan, "--data", "."]).run();
    let _ = wrong.exits(2, &["is the plan of a stream", "cortado events start"]);
    for new in [true, false] {
        let started = cluster.json(&["events", "start", plan, "--stream", "clicks"]);
        assert_eq!(started["new"], new);
    }
    let other = cluster.cortado(&["events", "start", "--stream", "clicks"]).run();
    let _ = other.exits(2, &["runs with another plan"]);
    let of = |arguments: &[&str]| {
        let all = [&["events"], arguments, &["--stream", "clicks"]].concat();
        cluster.cortado(&all)
    };
    let wrong = of(&["tail", "analytics.window", "--no-follow"]).run();
    let _ = wrong.exits(3, &["there is no output", "clicks.by_page"]);
    let click = |n: i64| {
        let at = cortado_stream::time_text(1_790_000_000_000 + 250 * n);
        format!(
            "{{\"click_id\":\"c{n}\",\"at\":\"{at}\",\"page\":\"p{}\",\"data\":{{\"button\":{}}}}}",
            n % 2,
            n % 4
        )
    };
    let mut lines: Vec<_> = (0..40).map(click).collect();
    lines.push("{\"click_id\":\"c40\",\"at\":\"2026-09-21T16:26:50Z\",\"page\":\"p0\"}".to_owned());
    let path = cluster.path("clicks.ndjson");
    std::fs::write(&path, lines.join("\r\n")).unwrap();
    of(&["publish", "--from", &path_text(&path)]).run().ok();
    of(&["stop"]).run().ok();
    let tail = |output: &str| of(&["tail", output]).run().ok().json_lines();
    let pages = tail("clicks.by_page");
    assert_eq!(pages.len(), 10);
    assert!(pages.iter().all(|row| row["by_page"] == json!({ "p0": 2, "p1": 2 })), "{pages:?}");
    assert!(pages[0].get("event_ids").is_none());
    let buttons = tail("clicks.by_button");
    assert_eq!(buttons.len(), 1);
    assert_eq!(buttons[0]["stats"], json!({ "0": 10, "1": 10, "2": 10, "3": 10 }));
    assert_eq!(tail("deadletter.processing")[0]["path"], "/data/button");
    of(&["check"]).run().ok();
    let _ = of(&["publish", "--count", "1"]).run().exits(1, &["the job is done"]);
    // After the end a stream of the same name can begin anew.
    assert_eq!(of(&["start", plan]).args(&["--json"]).run().ok().json()["new"], true);
}

/// A count far above those of the windows before it is an alert with the numbers that caused it; when late
/// events change the window, the alert is told again as of the new cut.
#[test]
fn a_burst_raises_an_alert_that_names_its_numbers() {
    let cluster = Cluster::up(3);
    start(&cluster);
    // Two events in each window of half a second, then forty in the window that starts at 15 s.
    let line = |n: i64, at_ms: i64| {
        let at = cortado_stream::time_text(1_790_000_000_000 + at_ms);
        format!(
            "{{\"event_id\":\"00000000-0000-4000-8000-{n:012x}\",\"timestamp\":\"{at}\",\
             \"region\":\"norte\",\"source\":\"migration.case\",\"schema_version\":\"1.0\",\
             \"payload\":{{\"case_id\":\"c{n}\",\"case_type\":\"work\",\"status\":\"pending\",\
             \"origin_country\":\"Freedonia\",\"application_date\":\"2026-01-20\"}}}}"
        )
    };
    let calm = (0..60).map(|n| line(n, n * 250));
    let burst = (0..40).map(|n| line(1_000 + n, 15_000 + n));
    let publish = |name: &str, lines: Vec<String>| {
        let path = cluster.path(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        let path = path_text(&path);
        cluster.cortado(&["events", "publish", "--publisher", name, "--from", &path]).run().ok();
    };
    publish("first", calm.chain(burst).chain([line(5_000, 16_000)]).collect());
    let alerts = |least: usize| {
        wait_for("an alert", 20, || {
            let rows = cluster.rows("alerts.anomaly");
            (rows.len() >= least).then_some(rows)
        })
    };
    let [alert] = &alerts(1)[..] else { panic!("one alert is expected") };
    let at = |ms: i64| json!(cortado_stream::time_text(1_790_000_000_000 + ms));
    assert_eq!((&alert["state"], &alert["count"]), (&json!("raised"), &json!(40)));
    assert_eq!((&alert["region"], &alert["source"]), (&json!("norte"), &json!("migration.case")));
    assert_eq!((&alert["window_start"], &alert["window_end"]), (&at(15_000), &at(15_500)));
    let history = &alert["history"];
    assert_eq!((&history["windows"], &history["sum"]), (&json!(30), &json!(60)));
    let compared = history["revisions"].as_array().unwrap();
    assert_eq!((compared.len(), &compared[0][0]), (30, &at(0)));
    assert!(alert["probability"].as_f64().unwrap() < 1e-9, "{alert}");

    publish("late", (0..5).map(|n| line(2_000 + n, 15_100 + n)).collect());
    let all = alerts(2);
    let again = all.last().unwrap();
    assert_eq!((&again["alert_id"], &again["count"]), (&alert["alert_id"], &json!(45)));
    assert!(again["revision"].as_u64() > alert["revision"].as_u64());
    cluster.cortado(&["events", "check"]).run().ok();
}

/// The plan of the built-in stream, with short windows, and with events that are kept for 4 s.
fn forgetful() -> String {
    let mut text = short_windows();
    let alerts = text.find("[[alerts]]").unwrap()..text.find("[audit]").unwrap();
    text.replace_range(alerts, "");
    let text = text.replace("retention = \"7d\"", "retention = \"4s\"");
    let text = text.replace("horizon = \"10m\"", "horizon = \"1s\"");
    assert!(text.contains("retention = \"4s\""));
    text
}

#[test]
fn a_stream_forgets_what_is_older_than_its_retention_and_still_accounts_for_every_event() {
    let cluster = Cluster::up(3);
    cluster.start_stream(&forgetful());
    let options = valid_events(5);
    let publish = |name: &str, numbers: std::ops::Range<u64>| {
        let path = cluster.path(&format!("{name}.ndjson"));
        let lines: Vec<_> = numbers.map(|n| options.event(n).line).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let from = path_text(&path);
        let publish = ["events", "publish", "--publisher", name, "--from", &from, "--json"];
        cluster.cortado(&publish).run().ok().json()
    };
    let retired = |before: i64| {
        wait_for("windows to be retired", 30, || {
            let status = status(&cluster);
            let at = cortado_stream::parse_time(status["retired_before"].as_str()?).unwrap();
            (at >= options.start_ms + before).then_some(status)
        })
    };
    assert_eq!(publish("a", 0..1_000)["events"], 1_000);
    let status_of_a = retired(5_000);
    assert_eq!(status_of_a["events"]["counted"], 1_000);
    cluster.cortado(&["events", "check"]).run().ok();
    // A day's metrics still count what is gone.
    let days = |expected: u64| {
        let rows = cluster.json(&["events", "metrics"]);
        let counts = rows.as_array().unwrap().iter().flat_map(|row| {
            let parts = row["metrics"].as_object().unwrap().values();
            parts.map(|part| part["count"].as_u64().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(counts.sum::<u64>(), expected, "{rows}");
    };
    days(1_000);
    let first = cluster.rows("analytics.window");
    let oldest = first.iter().map(|row| row["window_start"].as_str().unwrap()).min().unwrap();
    assert!(cortado_stream::parse_time(oldest).unwrap() > options.start_ms, "rows are gone, too");

    // With one node away, nothing is forgotten, and the stream says for whom it waits.
    let victim = &cluster.nodes()[2].name().to_string();
    cluster.kill(victim);
    assert_eq!(publish("b", 1_000..3_000)["events"], 2_000);
    wait_for("the stream to wait for a node", 30, || {
        let waits = status(&cluster)["waits_for"].as_str()?.to_owned();
        waits.contains(victim.as_str()).then_some(())
    });
    cluster.start(victim);
    let status_of_b = retired(24_000);
    assert_eq!(status_of_b["events"]["counted"], 3_000);

    // What comes for a retired window is not counted, and told.
    assert_eq!(publish("late", 3_000..3_001)["events"], 1);
    assert_eq!(publish("later", 0..10)["events"], 10);
    wait_for("late events to be told", 20, || {
        let events = status(&cluster)["events"].clone();
        (events["retired"] == 10 && events["received"] == 3_011).then_some(())
    });
    let check = cluster.cortado(&["events", "check", "--json"]).run().ok().json();
    assert_eq!((&check["ok"], &check["retired"]), (&json!(true), &json!(10)));
    days(3_001);

    // All nodes begin again with what their disks say.
    cluster.kill_all();
    cluster.local("up").run().ok();
    wait_for("the stream to stand as before", 30, || {
        let told = cluster.cortado(&["events", "status", "--json"]).run();
        let events = (told.code == Some(0)).then(|| told.json())?["events"].clone();
        (events["counted"] == 3_001 && events["retired"] == 10).then_some(())
    });
    cluster.cortado(&["events", "check"]).run().ok();
    days(3_001);
    // An audit file says what it lacks.
    let file = path_text(&cluster.path("audit.db"));
    let _ = cluster.cortado(&["events", "audit", "--out", &file]).run().exits(0, &["retention"]);
}

/// A publisher that never comes back does not keep its stream from ending, and what was acknowledged counts.
#[test]
fn a_stream_ends_without_a_publisher_that_is_gone() {
    let cluster = Cluster::up(3);
    start(&cluster);
    let gone = ["events", "publish", "--publisher", "gone", "--rate", "500"];
    let gone = cluster.cortado(&gone).spawn();
    let of_gone = |status: &Value| {
        let publishers = status["publishers"].as_array().unwrap();
        publishers.iter().find(|of| of["name"] == "gone").cloned()
    };
    wait_for("some batches", 20, || {
        of_gone(&status(&cluster))?["prefix"].as_u64().filter(|prefix| *prefix > 2)
    });
    let _ = gone.kill();
    cluster.cortado(&["events", "stop"]).run().ok();
    let end = wait_for("the stream to end", 40, || {
        let status = status(&cluster);
        (status["ended"] == true).then_some(status)
    });
    let gone = of_gone(&end).unwrap();
    assert_eq!((&gone["sealed"], &gone["void"]), (&json!(true), &json!(0)));
    assert_eq!(gone["events"], end["events"]["counted"]);
    cluster.cortado(&["events", "check"]).run().ok();
}
