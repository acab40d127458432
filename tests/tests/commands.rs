//! The commands of a cluster: starting and stopping a local one, tables for people, JSON for
//! programs.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::cluster::{Cluster, Coffee, Cortado, Shape, job_id, path_text, wait_for};

#[test]
fn a_local_cluster_lives_and_dies_by_its_commands() {
    let cluster = Cluster::empty();
    let up = cluster.local("up").args(&["--nodes", "2", "--json"]).run().ok().json();
    assert_eq!(up["started"], serde_json::json!(["node-1", "node-2"]));
    assert_eq!(up["durability"], serde_json::json!({"nodes": 2, "replicas": 2, "min_copies": 2}));
    let local = |verb: &str, node: &str| {
        cluster.local(verb).args(&[node, "--json"]).run().ok().json()["state"].clone()
    };
    assert_eq!(local("pause", "node-2"), "paused");
    assert_eq!(local("resume", "node-2"), "resumed");
    assert_eq!(local("kill", "node-2"), "killed");
    assert!(!cluster.is_running("node-2"));
    let _ = cluster.local("kill").args(&["node-2"]).run().exits(2, &["node-2 does not run"]);
    assert_eq!(local("wipe-disk", "node-2"), "wiped");
    let _ = cluster.local("wipe-disk").args(&["node-1"]).run().exits(2, &["node-1 runs"]);
    assert_eq!(local("start", "node-2"), "started");
    assert_eq!(local("start", "node-2"), "already running");
    cluster.await_members();
    cluster.kill("node-1");
    let again = cluster.local("up").args(&["--json"]).run().ok().json();
    assert_eq!(again["started"], serde_json::json!(["node-1"]));
    let added = cluster.local("add").args(&["--count", "1", "--json"]).run().ok().json();
    assert_eq!(added["started"], serde_json::json!(["node-3"]));
    let _ = cluster.local("kill").args(&["node-7"]).run().exits(3, &["node-7", "node-1"]);
    // The cluster's folder is also its profile.
    cluster.cortado(&["local", "stop", "node-3"]).run().ok();
    let _ = Cortado::new(&["local", "stop", "node-3"]).run().exits(2, &["--dir", "--cluster"]);
    cluster.local("down").args(&["--wipe"]).run().ok();
    assert!(!cluster.dir().exists());
}

#[test]
fn everything_is_told_to_people_and_to_programs() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").args(&["--json"]).run().ok().json_lines();
    assert_eq!(run[0]["job"], job.as_str());
    assert_eq!(run.last().unwrap()["state"], "done");

    let out = path_text(&cluster.path("again"));
    for arguments in [
        vec!["nodes"],
        vec!["ring"],
        vec!["jobs"],
        vec!["status", &job],
        vec!["explain", &job],
        vec!["verify", &job],
        vec!["result", &job, "--out", &out],
    ] {
        assert!(!cluster.json(&arguments).is_null(), "{arguments:?}");
        let text = cluster.cortado(&arguments).run().ok().stdout;
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{arguments:?}: {text}");
    }
    let text = |arguments: &[&str]| cluster.cortado(arguments).run().ok().stdout;
    assert!(text(&["nodes"]).contains("node-2"));
    assert!(text(&["ring"]).contains("no moves in progress"));
    assert!(text(&["status", &job]).contains("transactions"));
    assert!(text(&["explain", &job]).contains("done"));

    let ring = cluster.json(&["ring"]);
    let slots = ring["slots"].as_array().unwrap();
    assert!(slots.iter().all(|slot| slot["owners"].as_array().unwrap().len() == 3), "{ring}");
    let status = cluster.status(&job);
    for table in status["tables"].as_array().unwrap() {
        assert_eq!(table["batches"], table["declared"], "{table}");
    }
}

#[test]
fn without_a_cluster_commands_end_with_5_in_time() {
    let cluster = Cluster::up(2);
    cluster.kill_all();
    let started = std::time::Instant::now();
    let silent = cluster.cortado(&["--timeout", "2", "jobs"]).run();
    let _ = silent.exits(5, &["can't be reached", "safe to try again"]);
    assert!(started.elapsed().as_secs() < 10, "it said 2 s, it took {:?}", started.elapsed());
}

#[test]
fn a_closed_pipe_ends_a_command_without_noise() {
    let cluster = Cluster::up(1);
    let mut jobs = Command::new(tests::cluster::program())
        .args(["--cluster", &path_text(&cluster.dir()), "ring"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(jobs.stdout.take());
    let status = wait_for("the command to end", 20, || jobs.try_wait().unwrap());
    let mut stderr = String::new();
    jobs.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_detached_job_finishes_by_itself() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    let dir = path_text(data.dir());
    let run = cluster.cortado(&["run", "coffee", "--data", &dir, "--job", &job, "--detach"]);
    let run = run.run().ok();
    assert_eq!(run.stdout.trim(), job);
    let done: Value = cluster.await_state(&job, "done");
    assert_eq!(done["files"].as_array().unwrap().len(), 6);
    let out = path_text(&cluster.path("out"));
    cluster.cortado(&["result", &job, "--out", &out]).run().ok();
    data.check(&cluster, &job, "out");
}

#[test]
fn a_copied_folder_neither_ends_nor_hides_the_cluster_it_was_copied_from() {
    let cluster = Cluster::up(1);
    let copy = cluster.path("copy");
    let copied = Command::new("cp").arg("-r").args([cluster.dir(), copy.clone()]).status();
    assert!(copied.unwrap().success());
    let local = |verb: &str| Cortado::new(&["local", verb, "--dir", &path_text(&copy)]).run();
    let _ = local("up").exits(2, &["node-1 is in use", "copied"]);
    let _ = local("down").ok();
    assert!(cluster.is_running("node-1"));
    cluster.await_members();
}
