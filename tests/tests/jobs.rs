//! Many jobs at once: they are isolated and ordered, and are dropped after their time to live.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use cortado::local::NodeFolder;
use serde_json::Value;
use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, wait_for};

#[test]
fn four_clients_at_once_while_a_node_dies() {
    let cluster = Cluster::up(5);
    let shape = |seed| Shape { transactions_per_month: 10_000, users: 10_000, seed };
    let data: Vec<_> = (1..=4).map(|seed| Coffee::new(shape(seed))).collect();
    let runs: Vec<_> = (1..)
        .zip(&data)
        .map(|(number, data)| {
            let job = job_id(number);
            let run = cluster.run_coffee(data.dir(), &job, &job).upload_rate(1_000_000).spawn();
            (job, data, run)
        })
        .collect();
    for (job, ..) in &runs {
        cluster.await_upload(job, 25);
    }
    cluster.kill(&cluster.coordinator(&job_id(1)));
    for (job, data, run) in runs {
        run.wait().ok();
        data.check(&cluster, &job, &job);
    }
    let jobs = cluster.json(&["jobs"]);
    let states: Vec<_> = jobs.as_array().unwrap().iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["done"; 4]);
}

#[test]
fn a_client_that_another_one_overtakes_gets_the_result_too() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let slow = cluster.run_coffee(data.dir(), &job, "slow").upload_rate(Shape::SLOW / 2).spawn();
    cluster.await_upload(&job, 10);
    let (folder, out) = (path_text(data.dir()), path_text(&cluster.path("fast")));
    cluster.cortado(&["resume", &job, "--data", &folder, "--out", &out]).run().ok();
    // While it sends, the client gets the answer that the job has ended.
    slow.wait().ok();
    for out in ["fast", "slow"] {
        data.check(&cluster, &job, out);
    }
}

#[test]
fn submitting_is_idempotent_and_every_node_has_the_result() {
    let cluster = Cluster::up(5);
    let (data, other) = (Coffee::new(Shape::TINY), Coffee::new(Shape { seed: 9, ..Shape::TINY }));
    let job = job_id(1);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    data.check(&cluster, &job, "out");
    // An identical submission is the same job; another dataset or plan under its id is refused.
    cluster.run_coffee(data.dir(), &job, "again").run().ok();
    data.check(&cluster, &job, "again");
    assert_eq!(cluster.json(&["jobs"]).as_array().unwrap().len(), 1);
    let refused = cluster.run_coffee(other.dir(), &job, "other").run();
    let _ = refused.exits(2, &["since the job was submitted"]);
    assert!(!cluster.path("other").exists());
    let plan = cluster.path("plan.toml");
    let text = "name = \"sales\"\n[tables.transactions]\nfiles = \"transactions/*.csv\"\n\
                [tables.transactions.columns]\nfinal_amount = \"decimal(2)\"\n\
                [[queries]]\noutput = \"sum.csv\"\nfrom = \"transactions\"\n\
                aggregates = { sum = \"sum(final_amount)\" }\n";
    std::fs::write(&plan, text).unwrap();
    let (plan, dir) = (path_text(&plan), path_text(data.dir()));
    let refused = cluster.cortado(&["run", &plan, "--data", &dir, "--job", &job]).run();
    let _ = refused.exits(2, &["another plan"]);

    for node in cluster.nodes() {
        let address = node.client_addr().to_string();
        let out = path_text(&cluster.path(node.name().as_str()));
        let result = cluster.cortado(&["result", &job, "--out", &out, "--connect", &address]);
        let result = result.args(&["--json"]).run().ok().json();
        assert_eq!(result["state"], "done");
        data.check_reports(&cluster.path(node.name().as_str()));
    }
}

/// The states and places of some jobs.
fn places(cluster: &Cluster, jobs: &[String]) -> Vec<(String, Value)> {
    let place = |job: &String| {
        let status = cluster.status(job);
        (status["state"].as_str().unwrap().to_owned(), status["queue_position"].clone())
    };
    jobs.iter().map(place).collect()
}

#[test]
fn jobs_over_the_limit_wait_in_order_of_arrival() {
    let cluster = Cluster::up_with(3, "max_running_jobs = 1");
    let data = Coffee::new(Shape::TINY);
    let jobs: Vec<_> = (1..=3).map(job_id).collect();
    let slow = cluster.run_coffee(data.dir(), &jobs[0], "0").upload_rate(20_000).spawn();
    cluster.await_state(&jobs[0], "uploading");
    let second = cluster.run_coffee(data.dir(), &jobs[1], "1").spawn();
    cluster.await_state(&jobs[1], "queued");
    let third = cluster.run_coffee(data.dir(), &jobs[2], "2").spawn();
    cluster.await_state(&jobs[2], "queued");
    let queue = wait_for("the queue to be told", 20, || {
        let places = places(&cluster, &jobs);
        (places[2].1 == 2).then_some(places)
    });
    assert_eq!(queue[0].0, "uploading");
    assert_eq!(queue[1], ("queued".into(), 1.into()));
    let explained = cluster.json(&["explain", &jobs[2]]);
    assert!(explained["explanation"].as_str().unwrap().contains("queue"), "{explained}");
    // The first job is cancelled, so its place is free.
    slow.kill();
    assert_eq!(cluster.json(&["cancel", &jobs[0]])["state"], "cancelled");
    second.wait().ok();
    data.check(&cluster, &jobs[1], "1");
    third.wait().ok();
    data.check(&cluster, &jobs[2], "2");
}

#[test]
fn uploads_that_were_interrupted_do_not_block_the_next_and_go_on_later() {
    let settings = "max_running_jobs = 2\nupload_idle_seconds = 2";
    let cluster = Cluster::up_with(3, settings);
    let data = Coffee::new(Shape::TINY);
    let jobs: Vec<_> = (1..=3).map(job_id).collect();
    for job in &jobs[..2] {
        let run = cluster.run_coffee(data.dir(), job, "never").upload_rate(20_000).spawn();
        cluster.await_state(job, "uploading");
        run.kill();
    }
    cluster.run_coffee(data.dir(), &jobs[2], "2").spawn().wait().ok();
    data.check(&cluster, &jobs[2], "2");
    let explained = cluster.json(&["explain", &jobs[0]]);
    let explained = explained["explanation"].as_str().unwrap();
    assert!(explained.contains("its client has sent nothing for"), "{explained}");
    let (dir, out) = (path_text(data.dir()), path_text(&cluster.path("0")));
    let resume = ["resume", &jobs[0], "--data", &dir, "--out", &out];
    let _ = cluster.cortado(&resume).run().exits(0, &[]);
    data.check(&cluster, &jobs[0], "0");
}

#[test]
fn a_cancelled_job_stays_cancelled() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 20);
    assert_eq!(cluster.json(&["cancel", &job])["state"], "cancelled");
    run.wait().exits(1, &["cancelled"]);
    assert_eq!(cluster.status(&job)["state"], "cancelled");
    let (dir, out) = (path_text(data.dir()), path_text(&cluster.path("out")));
    let _ = cluster.cortado(&["resume", &job, "--data", &dir]).run().exits(1, &["cancelled"]);
    let _ = cluster.cortado(&["result", &job, "--out", &out]).run().exits(1, &["cancelled"]);
    assert!(!cluster.path("out").exists(), "a cancelled job has no result");
}

#[test]
fn a_job_is_gone_everywhere_when_its_time_is_over() {
    let cluster = Cluster::up_with(3, "job_ttl_seconds = 4");
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    data.check_reports(&cluster.path("out"));
    for node in cluster.nodes() {
        await_no_job(&cluster, node.name().as_str());
    }
    assert_eq!(cluster.json(&["jobs"]), Value::Array(Vec::new()));
    let _ = cluster.cortado(&["status", &job]).run().exits(3, &[&job]);
    // After a restart, no node has the job on its disk.
    cluster.kill_all();
    cluster.local("up").run().ok();
    assert_eq!(cluster.json(&["jobs"]), Value::Array(Vec::new()));
    let _ = cluster.cortado(&["status", &job]).run().exits(3, &[&job]);
    // No file contains data of the log any more.
    for node in cluster.nodes() {
        let kept = files_with(&node.path().join("data"), b"transactions_202401.csv");
        assert!(kept.is_empty(), "{}: {kept:?}", node.name());
    }
}

#[test]
fn a_job_does_not_return_with_a_node_that_was_away_when_it_was_dropped() {
    let cluster = Cluster::up_with(3, "job_ttl_seconds = 4");
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    cluster.await_moves();
    cluster.kill("node-3");
    for node in ["node-1", "node-2"] {
        await_no_job(&cluster, node);
    }
    cluster.start("node-3");
    cluster.await_members();
    await_no_job(&cluster, "node-3");
    for node in cluster.nodes() {
        let address = node.client_addr().to_string();
        let jobs = cluster.cortado(&["jobs", "--json", "--connect", &address]).run().ok();
        assert_eq!(jobs.json(), Value::Array(Vec::new()), "{}", node.name());
    }
    let _ = cluster.cortado(&["status", &job]).run().exits(3, &[&job]);
}

#[test]
fn a_node_cut_off_for_longer_than_the_time_to_live_ends_no_job_that_runs() {
    let cluster = Cluster::up_for_trouble_with(3, "job_ttl_seconds = 3");
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW / 2).spawn();
    cluster.await_upload(&job, 10);
    // The isolated node sees itself as the coordinator of every job, and has seen no sign of life
    // for too long.
    cluster.chaos(&["partition", "node-1", "--for", "5s"]);
    let _ = run.wait().ok();
    data.check_reports(&cluster.path("out"));
    cluster.await_members();
    for node in cluster.nodes() {
        await_no_job(&cluster, node.name().as_str());
    }
}

#[test]
fn nothing_expires_while_too_many_members_are_away_and_nodes_says_so() {
    let cluster = Cluster::up_with(3, "job_ttl_seconds = 3");
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    cluster.kill("node-2");
    cluster.kill("node-3");
    let address = cluster.address("node-1");
    let nodes = |json: bool| {
        let nodes = cluster.cortado(&["nodes", "--connect", &address]);
        if json { nodes.args(&["--json"]) } else { nodes }
    };
    wait_for("the job to be overdue", 30, || {
        let view = nodes(true).run().ok().json();
        (view["overdue"]["jobs"] == 1).then_some(())
    });
    let text = nodes(false).run().ok().stdout;
    let says = "1 job is past the time to live; to let go of it, too many members are away: \
                start node-2, node-3";
    assert!(text.contains(says), "{text}");
    cluster.start("node-2");
    await_no_job(&cluster, "node-1");
    cluster.start("node-3");
    await_no_job(&cluster, "node-3");
}

#[test]
fn a_deleted_job_is_forgotten_everywhere_and_stays_so() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    let (job, other) = (job_id(1), job_id(2));
    let slow = Coffee::new(Shape::MIDDLE);
    let run = cluster.run_coffee(slow.dir(), &other, "other").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&other, 5);
    let _ = cluster.cortado(&["delete", &other]).run().exits(2, &["has not ended", "cancel"]);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    assert_eq!(cluster.json(&["delete", &job])["deleted"], true);
    let gone = |cluster: &Cluster| {
        let _ = cluster.cortado(&["status", &job]).run().exits(3, &[&job, "was deleted"]);
        let dir = path_text(data.dir());
        let _ = cluster.cortado(&["resume", &job, "--data", &dir]).run().exits(3, &["deleted"]);
        // A client that did not receive the answer repeats its request.
        cluster.cortado(&["delete", &job]).run().ok();
    };
    gone(&cluster);
    assert_eq!(cluster.json(&["cancel", &other])["state"], "cancelled");
    run.wait().exits(1, &["cancelled"]);
    cluster.cortado(&["delete", &other]).run().ok();
    assert_eq!(cluster.json(&["jobs"]), Value::Array(Vec::new()));
    // No disk has anything of the job, and no node restores it.
    cluster.kill_all();
    cluster.local("up").run().ok();
    gone(&cluster);
    wait_for("the disks to be without it", 30, || {
        let data = |node: &NodeFolder| node.path().join("data");
        let kept = |node| files_with(&data(node), b"transactions_202401.csv").len();
        (cluster.nodes().iter().map(kept).sum::<usize>() == 0).then_some(())
    });
}

/// Waits until a node has no record of any job.
fn await_no_job(cluster: &Cluster, name: &str) {
    let address = cluster.address(name);
    wait_for(&format!("{name} to forget the job"), 30, || {
        let view = cluster.cortado(&["nodes", "--json", "--connect", &address]).run().ok();
        let members = view.json()["members"].clone();
        let own = |m: &&Value| m["id"] == name && m["jobs"] == 0;
        members.as_array().unwrap().iter().find(own).map(drop)
    });
}

/// The files below a folder that contain these bytes.
fn files_with(folder: &std::path::Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if path.is_file()
            && std::fs::read(&path).unwrap().windows(bytes.len()).any(|part| part == bytes)
        {
            found.push(path);
        }
    }
    found
}
