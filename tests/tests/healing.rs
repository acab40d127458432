//! Dead nodes are brought back by the living ones, and the results stay right.

use std::time::Instant;

use serde_json::Value;
use tests::cluster::{Cluster, Coffee, Shape, StarterKiller, job_id, wait_for};

/// Time limit in seconds from a node's death until all see it alive again: marked as down, started,
/// joined. The aim is 5 s; small machines need more.
const BACK: u64 = 20;

/// Waits until these nodes run in other processes than before, and all nodes see each other.
fn await_back(cluster: &Cluster, names: &[String], before: &[Option<cortado::local::ProcessId>]) {
    let since = Instant::now();
    for (name, before) in names.iter().zip(before) {
        wait_for(&format!("{name} to be started again"), BACK, || {
            cluster.process(name).filter(|now| Some(*now) != *before)
        });
    }
    let started = since.elapsed();
    cluster.await_members();
    let (started, joined) = (started.as_secs_f32(), since.elapsed().as_secs_f32());
    println!("{} killed: started after {started:.2} s, all alive after {joined:.2} s", names.len());
}

/// Kills nodes in the middle of an upload, and checks that they return and the result is right.
fn heals(nodes: usize, job: u64, victims: impl FnOnce(&str) -> Vec<String>) {
    let cluster = Cluster::up_reviving(nodes);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(job);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 30);
    let names = victims(&cluster.supervisor(20));
    let before: Vec<_> = names.iter().map(|name| cluster.process(name)).collect();
    names.iter().for_each(|name| cluster.kill(name));
    await_back(&cluster, &names, &before);
    let _ = run.wait().ok();
    data.check(&cluster, &job, "out");
}

#[test]
fn a_killed_worker_is_back() {
    heals(5, 1, |_| vec!["node-2".to_owned()]);
}

#[test]
fn a_killed_supervisor_is_back() {
    heals(5, 2, |supervisor| vec![supervisor.to_owned()]);
}

#[test]
fn one_survivor_of_five_rebuilds_the_cluster() {
    heals(5, 3, |_| [5, 1, 4, 2].map(|n| format!("node-{n}")).to_vec());
}

/// The started process kills its supervisor at once, before the supervisor has noted which process
/// it started.
#[test]
fn a_supervisor_that_dies_of_starting_a_node_is_replaced_and_nobody_runs_twice() {
    let folder = tempfile::tempdir().unwrap();
    let killer = StarterKiller::compile(folder.path());
    let cluster = Cluster::up_dangerous(5, &killer);
    let data = Coffee::new(Shape::MIDDLE);
    for round in 1..=2 {
        let job = job_id(round);
        let run = cluster.run_coffee(data.dir(), &job, &job).upload_rate(Shape::SLOW).spawn();
        cluster.await_upload(&job, 20);
        let first = cluster.supervisor(20);
        let victim = if first == "node-1" { "node-2" } else { "node-1" };
        let names = [victim.to_owned(), first.clone()];
        let before: Vec<_> = names.iter().map(|name| cluster.process(name)).collect();
        killer.arm();
        cluster.kill(victim);
        await_back(&cluster, &names, &before);
        assert!(killer.has_struck());
        let _ = run.wait().ok();
        data.check(&cluster, &job, &job);
        for node in cluster.nodes() {
            let known: Vec<_> = node.process().map(|process| process.pid).into_iter().collect();
            assert_eq!(cluster.all_processes(node.name().as_str()), known, "{}", node.name());
        }
    }
}

#[test]
fn who_was_stopped_stays_down_and_a_killed_one_comes_back() {
    let cluster = Cluster::up_reviving(4);
    cluster.local("stop").args(&["node-2"]).run().ok();
    let before = cluster.process("node-3");
    cluster.kill("node-3");
    await_back(&cluster, &["node-3".to_owned()], &[before]);
    // The supervisor is killed and returns: it has to find out again that node-2 was stopped.
    let before = cluster.process("node-4");
    cluster.kill("node-4");
    await_back(&cluster, &["node-4".to_owned()], &[before]);
    assert!(!cluster.is_running("node-2"));
    let seen = cluster.events();
    let about = |event: &str, node: &str| {
        seen.iter().filter(|seen| seen["event"] == event && seen["node"] == node).count()
    };
    assert!(about("reviving", "node-4") > 0 && about("revived", "node-4") > 0);
    assert_eq!(about("reviving", "node-2"), 0);
    cluster.start("node-2");
    cluster.await_members();
}

#[test]
fn a_paused_node_is_replaced_once_its_health_check_fails() {
    let cluster = Cluster::up_reviving(3);
    let before = cluster.process("node-1");
    cluster.pause("node-1");
    await_back(&cluster, &["node-1".to_owned()], &[before]);
    let seen = cluster.events();
    let killed = |seen: &&Value| seen["event"] == "reviving" && seen["kill"] == true;
    assert_eq!(seen.iter().filter(killed).count(), 1, "{seen:#?}");
}

#[test]
fn a_node_that_can_not_start_is_given_up_until_the_operator_has_mended_it() {
    let cluster = Cluster::up_reviving(3);
    let config = cluster.dir().join("node-1/node.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("colour = 'blue'\n{good}")).unwrap();
    cluster.kill("node-1");
    for other in ["node-2", "node-3"] {
        wait_for("all to know that node-1 is crash-looping", 60, || {
            let nodes =
                cluster.cortado(&["nodes", "--json", "--connect", &cluster.address(other)]).run();
            let nodes = (nodes.code == Some(0)).then(|| nodes.json())?;
            (nodes["answered_by"] == other
                && nodes["crash_looping"] == serde_json::json!(["node-1"]))
            .then_some(())
        });
    }
    let shown = cluster.cortado(&["nodes"]).run().ok().stdout;
    assert!(shown.contains("crash-looping"), "{shown}");
    let starts = cluster.events();
    let starts = starts.iter().filter(|seen| seen["event"] == "reviving").count();
    assert_eq!(starts, 3);
    std::fs::write(&config, good).unwrap();
    cluster.start("node-1");
    cluster.await_members();
    wait_for("node-1 to be given up no longer", 20, || {
        let nodes = cluster.json(&["nodes"]);
        nodes["crash_looping"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}
