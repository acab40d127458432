//! What nodes answer over HTTP.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, Coffee, Http, Shape, job_id, plain_events, short_windows, wait_for};

fn small() -> Coffee {
    Coffee::new(Shape { transactions_per_month: 3_000, users: 500, seed: 7 })
}

const WINDOWS: &str = "/api/v1/streams/events/analytics.window";

/// What commands print with `--json`, nodes answer, too; results and rejected rows can be fetched from any
/// node.
#[test]
fn nodes_answer_what_commands_print() {
    let (cluster, coffee) = (Cluster::up(3), small());
    let job = job_id(1);
    cluster.run_coffee(coffee.dir(), &job, "out").run().ok();
    for node in ["node-1", "node-2", "node-3"] {
        let http = cluster.http(node);
        let at = cluster.address(node);
        let ask = |arguments: &[&str]| {
            cluster.cortado(arguments).args(&["--json", "--connect", &at]).run().ok().json()
        };
        let answered = http.get("/api/v1/nodes").json();
        assert_eq!(answered["answered_by"], node);
        assert_eq!(answered["members"][1]["http_addr"], cluster.http("node-2").addr().to_string());
        assert_eq!(ask(&["nodes"])["members"], answered["members"]);
        assert_eq!(ask(&["ring"])["slots"], http.get("/api/v1/ring").json()["slots"]);
        assert_eq!(ask(&["jobs"]), http.get("/api/v1/jobs").json());
        assert_eq!(ask(&["status", &job]), http.get(&format!("/api/v1/jobs/{job}")).json());
        for file in ["q1.csv", "q3.csv", "q4.csv", "receipt.json"] {
            let written = std::fs::read_to_string(cluster.path("out").join(file)).unwrap();
            let answer = http.get(&format!("/api/v1/jobs/{job}/results/{file}"));
            assert!(answer.body == written, "{file} from {node}");
        }
        assert_eq!(http.get(&format!("/api/v1/jobs/{job}/rejects")).json(), json!([]));
    }
    let http = cluster.http("node-1");
    // What a client has is not sent again.
    let first = http.get("/api/v1/openapi.json");
    let etag = first.header("etag").unwrap();
    let again = http.try_get("/api/v1/openapi.json", &[("If-None-Match", etag)]).unwrap();
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let log = http.get("/api/v1/log").json();
    let (boot, last) = (&log["boot"], &log["events"].as_array().unwrap().last().unwrap()["number"]);
    assert_eq!(log["events"][0]["event"], "started");
    let rest = http.get(&format!("/api/v1/log?after={boot}.{last}")).json();
    assert_eq!(rest["events"], json!([]));
}

/// Each bad request has an answer that says what is wrong, and nothing else happens.
#[test]
fn bad_requests_are_answered_with_a_reason() {
    let cluster = Cluster::up(3);
    let http = cluster.http("node-1");
    let job = job_id(9);
    for (path, status, reason) in [
        ("/nothing", 404, "nothing here"),
        ("/page/nothing.js", 404, "no such file"),
        ("/api/v1/jobs/x", 400, "expected a UUID"),
        (&*format!("/api/v1/jobs/{job}"), 404, &*job),
        (&*format!("/api/v1/jobs/{job}/results/q1.csv"), 404, &*job),
        ("/api/v1/streams/none/status", 404, "there is no stream 'none'"),
        ("/api/v1/log?after=x", 400, "expected BOOT.NUMBER"),
        ("/api/v1/log?what=1", 400, "unknown field"),
        ("/data", 404, "there is no stream"),
    ] {
        let answer = http.get(path);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some("application/json"))
        );
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(reason), "{path}: {body}");
    }
    // A page of another site, which has given its name this node's address.
    let rebound = http.try_get("/api/v1/nodes", &[("Host", "evil.example")]).unwrap();
    assert_eq!(rebound.status, 421);
    let origin = format!("http://{}", cluster.http("node-2").addr());
    for (origin, is_allowed) in [(&*origin, true), ("http://evil.example", false), ("null", false)]
    {
        let answer = http.try_get("/api/v1/nodes", &[("Origin", origin)]).unwrap();
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, is_allowed.then_some(origin));
    }
    assert_eq!(status_of(&http, b"POST /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(status_of(&http, long.as_bytes()), 431);
    assert_eq!(status_of(&http, b"nonsense\r\n\r\n"), 400);
}

/// The status of the answer to some bytes.
fn status_of(http: &Http, bytes: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(http.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The node may answer and close before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

/// Heads that never end take places for connections only for a while, and nothing else: another node's
/// clients and the membership notice nothing.
#[test]
fn heads_that_never_end_disturb_nobody() {
    let (cluster, coffee) = (Cluster::up(3), small());
    let http = cluster.http("node-1");
    let slow: Vec<_> = (0..1_500)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(http.addr()).ok()?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").ok()?;
            Some(stream)
        })
        .collect();
    assert!(slow.len() > 1_000, "{}", slow.len());
    let job = job_id(1);
    cluster.run_coffee(coffee.dir(), &job, "out").run().ok();
    coffee.check(&cluster, &job, "out");
    let states = cluster.members_seen_by("node-2").unwrap();
    assert!(states.values().all(|state| state == "alive"), "{states:?}");
    wait_for("a place for a connection", 40, || {
        http.try_get("/healthz", &[]).filter(|answer| answer.status == 200)
    });
}

/// Server-sent events go on at another node when the first one is killed, and each window comes once; the
/// windows say the same as `/data` and the counts of the stream.
#[test]
fn rows_come_once_although_the_node_that_sends_them_is_killed() {
    let cluster = Cluster::up(3);
    let job = cluster.start_stream(&short_windows());
    let coordinator = cluster.coordinator(&job);
    let others = cluster.others(&coordinator);
    let (first, second) = (cluster.http(&coordinator), cluster.http(&others[0]));
    cluster.publish_plain("a", 0, 3);
    let mut windows: BTreeMap<String, u64> = BTreeMap::new();
    let mut take = |(_, data): &(String, String)| {
        let row: Value = serde_json::from_str(data).unwrap();
        let start = row["window_start"].as_str().unwrap().to_owned();
        assert!(row.get("event_ids").is_none(), "brief");
        assert!(windows.insert(start, row["total"].as_u64().unwrap()).is_none(), "{row}");
    };
    let mut cursor = String::new();
    for sent in first.events(&format!("{WINDOWS}?brief=true"), None).take(4) {
        take(&sent);
        cursor = sent.0;
    }
    cluster.kill(&coordinator);
    cluster.publish_plain("b", 10, 2);
    cluster.cortado(&["events", "stop"]).run().ok();
    // Those after the fourth one, until the stream ends; the first cursor is good at another node.
    second.events(&format!("{WINDOWS}?brief=true"), Some(&cursor)).for_each(|sent| take(&sent));
    assert_eq!((windows.len(), windows.values().sum::<u64>()), (10, 500));

    let lines = second.get(WINDOWS).body;
    assert_eq!(lines.lines().count(), 10);
    let data = second.get("/data").json();
    assert_eq!((&data["stream"], &data["totals"]["counted"]), (&json!("events"), &json!(500)));
    assert_eq!(data["windows"].as_array().unwrap().len(), 10);
    assert_eq!(data["window_start"], *windows.keys().last().unwrap());
    let norte: u64 = (0..500)
        .filter(|n| {
            let (name, n) = if *n < 300 { ("a", *n) } else { ("b", *n - 300) };
            plain_events(name, if name == "a" { 0 } else { 10 }).event(n).line.contains("norte")
        })
        .count() as u64;
    let metrics = second.get("/api/v1/streams/events/metrics?region=norte").json();
    let sources =
        metrics.as_array().unwrap().iter().flat_map(|day| day["metrics"].as_object().unwrap());
    assert_eq!(sources.map(|(_, of)| of["count"].as_u64().unwrap()).sum::<u64>(), norte);
    let one =
        second.get("/api/v1/streams/events/metrics?region=norte&source=migration.case").json();
    assert_eq!(one[0]["metrics"].as_object().unwrap().len(), 1);
}

/// A dead letter can be looked at.
#[test]
fn a_dead_letter_is_shown_as_it_was_sent() {
    let cluster = Cluster::up(3);
    cluster.start_stream(&short_windows());
    let path = cluster.path("bad");
    std::fs::write(&path, "{\"event_id\": 1}\n").unwrap();
    let from = tests::cluster::path_text(&path);
    cluster.cortado(&["events", "publish", "--publisher", "p", "--from", &from]).run().ok();
    let http = cluster.http("node-2");
    let sent = http.events("/api/v1/streams/events/deadletter.validation", None).next().unwrap();
    let row: Value = serde_json::from_str(&sent.1).unwrap();
    let id = row["dead_id"].as_str().unwrap();
    let shown = http.get(&format!("/api/v1/streams/events/dead/{id}")).json();
    assert_eq!(shown["raw"], "{\"event_id\": 1}");
    assert!(!shown["reason"].as_str().unwrap().is_empty());
    assert_eq!(http.get("/api/v1/streams/events/dead/zz").status, 404);
}

/// Figures and counts are there, and Prometheus's own tool finds nothing to complain about.
#[test]
fn metrics_say_what_happened() {
    let (cluster, coffee) = (Cluster::up(3), small());
    cluster.run_coffee(coffee.dir(), &job_id(1), "out").run().ok();
    cluster.start_stream(&short_windows());
    cluster.publish_plain("a", 0, 1);
    cluster.kill("node-3");
    let texts = wait_for("the killed node to be seen", 20, || {
        let texts = ["node-1", "node-2"].map(|node| cluster.http(node).get("/metrics").body);
        texts.iter().all(|text| text.contains("cortado_members{state=\"down\"} 1")).then_some(texts)
    });
    let sum = |name: &str| -> f64 {
        let lines = texts.iter().flat_map(|text| text.lines());
        let values = lines.filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        values.sum()
    };
    assert!(sum("cortado_batches_total{outcome=\"durable\"}") >= 1.0);
    assert!(sum("cortado_batch_acknowledge_seconds_count") >= 1.0);
    assert!(sum("cortado_log_sync_seconds_count") >= 1.0);
    assert!(sum("process_resident_memory_bytes") > 1e6);
    assert!(sum("cortado_disk_free_bytes") > 1e6);
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        eprintln!("promtool is not installed: the format is not checked with it");
        return;
    };
    promtool.stdin.take().unwrap().write_all(texts[0].as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.is_empty(), "{said}");
}
