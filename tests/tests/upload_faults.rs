//! Faults in the middle of an upload: the reports equal the oracle's byte for byte.

use std::time::Instant;

use rustix::process::Signal;
use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, uploaded_percent, wait_for};

/// Starts an upload that takes seconds, and returns when 40 % of it is durable.
fn upload_in_the_middle(
    cluster: &Cluster,
    data: &Coffee,
    job: &str,
    out: &str,
) -> tests::cluster::Running {
    let run = cluster.run_coffee(data.dir(), job, out).upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(job, 40);
    run
}

#[test]
fn any_one_node_is_killed_during_an_upload() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape::MIDDLE);
    // The job's coordinator, and another node.
    for (number, kill_coordinator) in [(1, true), (2, false)] {
        let job = job_id(number);
        let run = upload_in_the_middle(&cluster, &data, &job, &job);
        let coordinator = cluster.coordinator(&job);
        let names = cluster.nodes().iter().map(|node| node.name().to_string()).collect::<Vec<_>>();
        let other = names.iter().find(|name| **name != coordinator).unwrap();
        let victim = if kill_coordinator { &coordinator } else { other };
        cluster.kill(victim);
        run.wait().ok();
        assert!(!cluster.is_running(victim), "the result must not wait for the dead node");
        data.check(&cluster, &job, &job);
        assert_ne!(cluster.coordinator(&job), *victim);
        cluster.start(victim);
        cluster.await_members();
    }
}

#[test]
fn all_nodes_are_killed_at_once_and_started_in_another_order() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let mut run = upload_in_the_middle(&cluster, &data, &job, "out");
    cluster.kill_all();
    assert!(run.is_running(), "the client goes on trying");
    for name in ["node-4", "node-2", "node-5", "node-1", "node-3"] {
        cluster.start(name);
    }
    run.wait().ok();
    data.check(&cluster, &job, "out");
}

#[test]
fn a_killed_client_is_resumed_and_sends_only_what_is_missing() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    upload_in_the_middle(&cluster, &data, &job, "out").kill();
    // Batches that were in flight when the client died may still become durable.
    let before = wait_for("the last batches to settle", 20, || {
        let first = cluster.status(&job);
        (first["tables"] == cluster.status(&job)["tables"]).then_some(first)
    });
    assert_eq!(before["state"], "uploading");
    assert!((40..100).contains(&uploaded_percent(&before)), "{before}");

    let (dir, out) = (path_text(data.dir()), path_text(&cluster.path("out")));
    let resume =
        cluster.cortado(&["resume", &job, "--data", &dir, "--out", &out]).upload_rate(Shape::SLOW);
    let resumed = resume.run().ok();
    let there: u64 = before["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["bytes"].as_u64().unwrap())
        .sum();
    let there = format!("resumed: {:.1} MiB of ", there as f64 / f64::from(1 << 20));
    assert!(resumed.stderr.contains(&there), "no '{there}' in {}", resumed.stderr);
    data.check(&cluster, &job, "out");

    // A second resume has nothing to send; a changed dataset is refused by name.
    let again = cluster.cortado(&["resume", &job, "--data", &dir, "--out", &out]).run().ok();
    assert!(!again.stderr.contains("uploaded"), "{}", again.stderr);
    let mut changed = data;
    changed.append("users/users_202401.csv", "1,f,1990-01-01,2024-01-01 00:00:00\n");
    let dir = path_text(changed.dir());
    let refused = cluster.cortado(&["resume", &job, "--data", &dir]).run();
    let _ = refused.exits(2, &["users/users_202401.csv", "bytes"]);
}

#[test]
fn a_changed_file_of_the_same_length_is_refused_by_name() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    upload_in_the_middle(&cluster, &data, &job, "out").kill();
    let file = data.dir().join("transactions/transactions_202401.csv");
    let text = std::fs::read_to_string(&file).unwrap();
    // The first row is in a batch that is already durable.
    let (header, rows) = text.split_once('\n').unwrap();
    let changed = rows.replacen(":", ";", 1);
    std::fs::write(&file, format!("{header}\n{changed}")).unwrap();
    let dir = path_text(data.dir());
    let refused = cluster.cortado(&["resume", &job, "--data", &dir]).run();
    let _ = refused.exits(2, &["transactions/transactions_202401.csv", "other content"]);
}

#[test]
fn a_node_stands_still_for_ten_seconds_and_is_back_during_the_upload() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    // The upload takes about twenty seconds.
    let mut run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(700_000).spawn();
    let before = uploaded_percent(&cluster.await_upload(&job, 20));
    let coordinator = cluster.coordinator(&job);
    cluster.pause(&coordinator);
    let paused = Instant::now();
    // Longer than the failure timeout.
    wait_for("ten seconds to pass", 15, || (paused.elapsed().as_secs() >= 10).then_some(()));
    let meanwhile = uploaded_percent(&cluster.status(&job));
    assert!(meanwhile > before + 10, "{before} % before the pause, {meanwhile} % after it");
    assert!(run.is_running(), "it must be back before the upload is over");
    cluster.resume(&coordinator);
    run.wait().ok();
    data.check(&cluster, &job, "out");
    cluster.await_members();
    // The node that was paused answers like all others.
    let again = path_text(&cluster.path("again"));
    let address = cluster.address(&coordinator);
    cluster.cortado(&["result", &job, "--out", &again, "--connect", &address]).run().ok();
    data.check_reports(&cluster.path("again"));
}

#[test]
fn two_of_five_are_killed_at_the_same_moment() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape::MIDDLE);
    // Two, one or none of three copies are lost: the client still has the files.
    for number in 1..=3 {
        let job = job_id(number);
        let run = upload_in_the_middle(&cluster, &data, &job, &job);
        let coordinator = cluster.coordinator(&job);
        let others = cluster.others(&coordinator);
        let victims = match number {
            1 => [coordinator.as_str(), others[0].as_str()],
            2 => [others[1].as_str(), others[2].as_str()],
            _ => [others[3].as_str(), coordinator.as_str()],
        };
        cluster.kill_together(&victims);
        run.wait().ok();
        assert!(victims.iter().all(|victim| !cluster.is_running(victim)), "nobody waited for them");
        data.check(&cluster, &job, &job);
        for victim in victims {
            cluster.start(victim);
        }
        cluster.await_members();
    }
    // The nodes got the entries that they had missed.
    cluster.await_moves();
    for (name, job) in cluster.nodes().iter().zip([1, 2, 3].map(job_id)) {
        let (name, out) = (name.name().to_string(), format!("by-{}", name.name()));
        let (folder, address) = (path_text(&cluster.path(&out)), cluster.address(&name));
        cluster.cortado(&["result", &job, "--out", &folder, "--connect", &address]).run().ok();
        data.check_reports(&cluster.path(&out));
    }
}

#[test]
fn ctrl_c_detaches_and_says_how_to_go_on() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let mut run = upload_in_the_middle(&cluster, &data, &job, "out");
    assert_eq!(run.stdout().lines().next(), Some(job.as_str()), "the id is printed first");
    run.signal(Signal::INT);
    let detached = run.wait().exits(130, &["go on with: cortado resume"]);
    assert_eq!(cluster.status(&job)["state"], "uploading");
    // The printed command works unchanged.
    let printed =
        detached.stderr.lines().find_map(|line| line.strip_prefix("go on with: cortado "));
    let arguments: Vec<_> = printed.unwrap().split(' ').collect();
    cluster.cortado(&arguments).run().ok();
    data.check(&cluster, &job, "out");
}
