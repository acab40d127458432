//! Rows of a stream that go to a webhook, too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::cluster::{Cluster, Webhook, short_windows, wait_for};

const OUTPUT: &str = "analytics.window";

fn start(cluster: &Cluster, webhook: &Webhook) -> String {
    let plan = format!(
        "{}\n[[webhooks]]\noutput = '{OUTPUT}'\nwebhook = '{}'\nretry = 'fixed'\nfirst = '100ms'\n\
         attempts = 3\n",
        short_windows(),
        webhook.url()
    );
    cluster.start_stream(&plan)
}

/// Each row reaches the webhook or is a dead letter, while it refuses rows and while the coordinator is
/// killed; equal rows have equal keys; and a dead letter's row is sent again when it is wanted.
#[test]
fn each_row_reaches_its_webhook_or_is_a_dead_letter() {
    let (cluster, webhook) = (Cluster::up(3), Webhook::start());
    let job = start(&cluster, &webhook);
    webhook.refuse(true);
    cluster.publish_plain("first", 0, 2);
    let letters = |least: usize| {
        wait_for("dead letters of rows", 30, || {
            let letters = cluster.rows("deadletter.processing");
            (letters.len() >= least).then_some(letters)
        })
    };
    let refused = letters(4);
    assert_eq!((&refused[0]["attempts"], &refused[0]["output"]), (&json!(3), &json!(OUTPUT)));
    assert!(refused[0]["reason"].as_str().unwrap().contains("503"), "{}", refused[0]);
    let status = cluster.json(&["events", "status"]);
    assert_eq!(status["webhooks"][0]["failed"], 4, "{status}");
    assert_eq!(webhook.taken().len(), 0);
    let shown = cluster.cortado(&["events", "status"]).run().ok().stdout;
    assert!(shown.contains("0 rows delivered, 4 failed"), "{shown}");
    let id = refused[0]["dead_id"].as_str().unwrap();
    let shown = cluster.cortado(&["events", "dead", "show", id]).run().ok().stdout;
    let row: Value = serde_json::from_str(&shown).unwrap();
    assert!(row["window_start"].is_string(), "{row}");

    webhook.refuse(false);
    assert_eq!(cluster.json(&["events", "dead", "replay"])["rows"], 4);
    wait_for("what was refused to be delivered", 20, || (webhook.taken().len() == 4).then_some(()));

    // The next coordinator goes on from where the last one wrote down that it was.
    cluster.publish_plain("second", 10, 4);
    let coordinator = cluster.coordinator(&job);
    wait_for("some rows to be delivered", 20, || (webhook.taken().len() > 4).then_some(()));
    cluster.kill_together(&[&coordinator]);
    cluster.publish_plain("third", 20, 4);
    cluster.cortado(&["events", "stop"]).run().ok();
    wait_for("the stream to end", 40, || {
        let status = cluster.cortado(&["events", "status", "--json"]).run();
        (status.code == Some(0)).then(|| status.json()).filter(|status| status["ended"] == true)
    });
    let mut taken: BTreeMap<String, Value> = BTreeMap::new();
    for (key, row) in webhook.taken() {
        let before = taken.insert(key, row.clone());
        assert!(before.is_none_or(|before| before == row), "{row}");
    }
    let published = cluster.rows(OUTPUT);
    let keys = published.iter().map(|row| {
        let row = row.as_object().unwrap().iter().filter(|(name, _)| *name != "cursor");
        let row: Value = row.map(|(name, value)| (name.clone(), value.clone())).collect();
        let key = cortado_stream::key_of(OUTPUT, &row.to_string()).unwrap();
        assert_eq!(taken.get(&key), Some(&row), "{key}");
        key
    });
    assert_eq!(keys.collect::<BTreeSet<_>>().len(), taken.len());
    assert!(published.len() >= 20, "{}", published.len());
    cluster.cortado(&["events", "check"]).run().ok();
}
