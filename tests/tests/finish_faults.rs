//! Faults while a job finishes. To hit that moment, a test uploads everything without declaring the
//! tables, pauses a node that must fold, and only then declares the ends of the tables. The job
//! can't complete the slots of that node until the node is marked as down.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::sync::Arc;

use cortado::job::{PlanSource, new_job_id, submit};
use cortado::{Cluster as Client, TableWork, dataset, upload};
use cortado_protocol::Coverage;
use cortado_protocol::client::ClientRequest;
use serde_json::Value;
use tests::cluster::{Cluster, Coffee, Shape, path_text, wait_for};

/// Uploads a dataset, pauses a node other than the coordinator, and declares the tables. Returns
/// the job, its coordinator and the paused node.
fn stuck_in_finish(cluster: &Cluster, data: &Coffee) -> (String, String, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Arc::new(Client::from_folder(&cluster.dir()).unwrap());
        let source = PlanSource::load("coffee").unwrap();
        let files = dataset::scan(data.dir(), &source.plan).unwrap();
        let job = new_job_id();
        let spec = Arc::new(submit(&client, job, &source, files).await.unwrap());
        // A table of which only some batches are sent is not declared.
        let all = |table| TableWork {
            table,
            only: Some(Coverage::range(0, 1 << 32)),
            ..TableWork::default()
        };
        let tables = spec.tables.len() as u16;
        upload(&client, data.dir(), &spec, (0..tables).map(all).collect(), &()).await.unwrap();
        let job_text = job.to_string();
        let status = cluster.status(&job_text);
        assert_eq!(status["state"], "uploading", "{status}");
        let coordinator = status["coordinator"].as_str().unwrap().to_owned();
        let stopped = last_other(cluster, &coordinator);
        cluster.pause(&stopped);
        for (table, status) in (0..).zip(status["tables"].as_array().unwrap()) {
            let batches = status["batches"].as_u64().unwrap();
            client.request(&ClientRequest::EndTable { job, table, batches }).await.unwrap();
        }
        (job_text, coordinator, stopped)
    })
}

fn last_other(cluster: &Cluster, coordinator: &str) -> String {
    let names = cluster.nodes().into_iter().map(|node| node.name().to_string());
    // Clients ask the first one first, so it must be a node that answers.
    names.into_iter().rev().find(|name| name != coordinator).unwrap()
}

/// Waits until the job is at its finish, with slots left to do.
fn await_finish(cluster: &Cluster, job: &str) -> Value {
    wait_for("the finish to begin", 10, || {
        let status = cluster.try_status(job)?;
        assert_ne!(status["state"], "done", "too late for a fault during the finish");
        let begun = status["stages"].as_array().is_some_and(|stages| !stages.is_empty());
        (status["state"] == "finishing" && begun).then_some(status)
    })
}

fn fetch_and_check(cluster: &Cluster, data: &Coffee, job: &str) {
    let (dir, out) = (path_text(data.dir()), path_text(&cluster.path(job)));
    cluster.cortado(&["resume", job, "--data", &dir, "--out", &out]).run().ok();
    data.check(cluster, job, job);
}

#[test]
fn nodes_are_killed_during_the_finish() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape { transactions_per_month: 5_000, users: 3_000, seed: 4 });

    // The paused node, which has not folded its slots, is killed.
    let (job, coordinator, stopped) = stuck_in_finish(&cluster, &data);
    let status = await_finish(&cluster, &job);
    cluster.kill(&stopped);
    assert!(status["stages"][0]["complete"].as_u64() < status["stages"][0]["total"].as_u64());
    fetch_and_check(&cluster, &data, &job);
    assert_eq!(cluster.coordinator(&job), coordinator);
    cluster.start(&stopped);
    cluster.await_members();

    // The job's coordinator is killed.
    let (job, coordinator, stopped) = stuck_in_finish(&cluster, &data);
    await_finish(&cluster, &job);
    cluster.kill(&coordinator);
    cluster.resume(&stopped);
    fetch_and_check(&cluster, &data, &job);
    assert_ne!(cluster.coordinator(&job), coordinator);
    cluster.start(&coordinator);
    cluster.await_members();

    // All nodes are killed, the coordinator among them.
    let (job, ..) = stuck_in_finish(&cluster, &data);
    await_finish(&cluster, &job);
    cluster.kill_all();
    cluster.local("up").run().ok();
    fetch_and_check(&cluster, &data, &job);
}

#[test]
fn batches_that_no_node_has_any_more_are_asked_of_the_client() {
    // With only one copy, the loss of a disk loses batches. The job says so until the client sends
    // them again.
    let cluster = Cluster::empty();
    cluster.local("up").args(&["--nodes", "3", "--replicas", "1", "--min-copies", "1"]).run().ok();
    let data = Coffee::new(Shape { transactions_per_month: 5_000, users: 3_000, seed: 5 });
    let (job, coordinator, lost) = stuck_in_finish(&cluster, &data);
    await_finish(&cluster, &job);
    cluster.kill(&lost);
    cluster.local("wipe-disk").args(&[&lost]).run().ok();
    cluster.start(&lost);
    let waits = wait_for("the job to say what it misses", 30, || {
        let explained = cluster.json(&["explain", &job])["explanation"].as_str()?.to_owned();
        explained.contains("batches that no live node has").then_some(explained)
    });
    assert!(waits.contains("transactions"), "{waits}");
    let out = path_text(&cluster.path("none"));
    let result = cluster.cortado(&["result", &job, "--out", &out]).run();
    let _ = result.exits(4, &["no result yet"]);
    assert_eq!(cluster.coordinator(&job), coordinator);
    fetch_and_check(&cluster, &data, &job);
}
