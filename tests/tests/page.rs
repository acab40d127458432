//! The live page in a real browser.

use tests::browser::Browser;
use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, short_windows, wait_for};

/// Remembers all states that elements of the page have had, as `attribute value state`.
const OBSERVE: &str = "
    window.seen = new Set();
    const note = (element) => {
        for (const name of ['node', 'job']) {
            const of = element.dataset?.[name];
            if (of && element.dataset.state) window.seen.add(`${name} ${of} ${element.dataset.state}`);
        }
    };
    new MutationObserver((changes) => {
        for (const change of changes) {
            note(change.target);
            change.addedNodes.forEach((node) => node.querySelectorAll?.('*').forEach(note));
        }
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
    document.querySelectorAll('*').forEach(note);";

/// Neither errors nor violations of the policy stand in the console. That a node which was killed does not
/// answer is none of the page's fault.
fn check_console(browser: &Browser) {
    let lines = browser.console();
    let wrong = |line: &&String| !line.contains("net::ERR_") && !line.starts_with("\"INFO\"");
    let wrong: Vec<_> = lines.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn saw(state: &str) -> String {
    format!("window.seen.has('{state}')")
}

/// Who watches sees a node die and return, and a job go on.
#[test]
fn a_node_is_seen_down_and_revived_and_a_job_done() {
    let cluster = Cluster::up_reviving(3);
    let Some(browser) = Browser::start(&cluster) else { return };
    browser.open(&format!("http://{}/", cluster.http("node-1").addr()));
    let alive = "document.querySelectorAll('[data-node][data-state=alive]').length === 3";
    browser.wait_until("three nodes", 20, alive);
    let _ = browser.run(OBSERVE);
    cluster.kill("node-2");
    // It may be back before its state is looked at; the time line tells all of it.
    for event in ["reviving", "revived"] {
        let told =
            format!("document.querySelector('#log [data-event={event}][data-about=node-2]')");
        browser.wait_until(event, 30, &told);
    }
    browser.wait_until("it to be back", 30, alive);

    let _ = browser.run("document.getElementById('tab-jobs').click()");
    let coffee = Coffee::new(Shape { transactions_per_month: 20_000, users: 2_000, seed: 5 });
    let job = job_id(1);
    let upload = cluster.run_coffee(coffee.dir(), &job, "out").upload_rate(2 << 20).spawn();
    browser.wait_until("the upload", 40, &saw(&format!("job {job} uploading")));
    upload.wait().ok();
    browser.wait_until(
        "the end",
        20,
        &format!("document.querySelector('[data-job=\"{job}\"][data-state=done]')"),
    );
    check_console(&browser);
}

/// Windows have the numbers that were published, an alert appears, and when the node is killed that serves
/// the page, the page says so and goes on with another one.
#[test]
fn windows_are_what_was_published_and_the_page_outlives_its_node() {
    let cluster = Cluster::up(3);
    let Some(browser) = Browser::start(&cluster) else { return };
    let job = cluster.start_stream(&short_windows());
    let coordinator = cluster.coordinator(&job);
    let home = cluster.others(&coordinator)[0].clone();
    browser.open(&format!("http://{}/#events", cluster.http(&home).addr()));
    let line = |n: i64, at_ms: i64, region: &str| {
        let at = cortado_stream::time_text(1_790_000_000_000 + at_ms);
        format!(
            "{{\"event_id\":\"00000000-0000-4000-8000-{n:012x}\",\"timestamp\":\"{at}\",\
             \"region\":\"{region}\",\"source\":\"migration.case\",\"schema_version\":\"1.0\",\
             \"payload\":{{\"case_id\":\"c{n}\",\"case_type\":\"work\",\"status\":\"pending\",\
             \"origin_country\":\"Freedonia\",\"application_date\":\"2026-01-20\"}}}}"
        )
    };
    let publish = |name: &str, lines: Vec<String>| {
        let path = cluster.path(name);
        std::fs::write(&path, lines.join("\n")).expect("a file can be written");
        let path = path_text(&path);
        cluster.cortado(&["events", "publish", "--publisher", name, "--from", &path]).run().ok();
    };
    // Two events in each window of half a second, then forty in one, and one that is not valid.
    let calm = (0..60).map(|n| line(n, n * 250, "norte"));
    let burst = (0..40).map(|n| line(1_000 + n, 15_000 + n, "norte"));
    publish("first", calm.chain(burst).chain([line(5_000, 16_000, "<b>no</b>")]).collect());
    let windows = || cluster.rows("analytics.window");
    let rows = wait_for("all windows", 20, || Some(windows()).filter(|rows| rows.len() == 31));
    for row in rows.iter().rev().take(5) {
        let (start, total) = (row["window_start"].as_str().unwrap_or_default(), &row["total"]);
        let shown = format!("[data-window=\"{start}\"][data-total=\"{total}\"]");
        browser.wait_until(&shown, 20, &format!("document.querySelector('{shown}')"));
    }
    browser.wait_until("an alert", 20, "document.querySelector('[data-alert]')");
    browser.wait_until("a dead letter", 20, "document.querySelector('[data-reason]')");
    check_console(&browser);

    cluster.kill(&home);
    browser.wait_until(
        "the page to say so",
        30,
        "document.getElementById('banner').textContent.trim()",
    );
    let moved = format!("!['{home}', ''].includes(document.body.dataset.answeredBy)");
    browser.wait_until("another node's answers", 30, &moved);
    publish("second", (0..20).map(|n| line(7_000 + n, 30_000 + n, "sur")).collect());
    let down = format!("document.querySelector('[data-node={home}][data-state=down]')");
    let _ = browser.run("document.getElementById('tab-cluster').click()");
    browser.wait_until("the node that was killed to be down", 30, &down);
    let _ = browser.run("document.getElementById('tab-events').click()");
    let start = cortado_stream::time_text(1_790_000_030_000);
    let shown = format!("document.querySelector('[data-window=\"{start}\"][data-total=\"20\"]')");
    browser.wait_until("a window that is published then", 30, &shown);
    check_console(&browser);
}
