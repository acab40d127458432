//! Nodes join and leave while jobs run: nothing is lost, and their entries move to other nodes.

use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, wait_for};

/// Fetches a job's result again and checks it.
fn fetch_and_check(cluster: &Cluster, data: &Coffee, job: &str, out: &str) {
    cluster.await_state(job, "done");
    let out_dir = path_text(&cluster.path(out));
    cluster.cortado(&["result", job, "--out", &out_dir]).run().ok();
    data.check(cluster, job, out);
}

#[test]
fn two_nodes_join_during_an_upload() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let mut run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 30);
    cluster.local("add").args(&["--count", "2"]).run().ok();
    assert!(run.is_running(), "the nodes must join before the upload is over");
    let _ = run.wait().ok();
    data.check(&cluster, &job, "out");
    // The new nodes have their share: the result survives the loss of two old ones.
    cluster.await_members();
    cluster.await_moves();
    cluster.kill("node-1");
    cluster.kill("node-2");
    fetch_and_check(&cluster, &data, &job, "again");
}

#[test]
fn a_node_drains_during_an_upload() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(2);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    let status = cluster.await_upload(&job, 30);
    let coordinator = status["coordinator"].as_str().unwrap();
    cluster.cortado(&["drain", coordinator]).run().ok();
    wait_for("the drained node to leave", 60, || (!cluster.is_running(coordinator)).then_some(()));
    let _ = run.wait().ok();
    data.check(&cluster, &job, "out");
    // All entries of the drained node are elsewhere, so another one may be lost at once.
    let other = cluster.coordinator(&job);
    cluster.kill(&other);
    fetch_and_check(&cluster, &data, &job, "again");
}

#[test]
fn a_node_is_stopped_by_sigterm_during_an_upload() {
    let cluster = Cluster::up(4);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(3);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    let status = cluster.await_upload(&job, 30);
    let coordinator = status["coordinator"].as_str().unwrap();
    let stopped = cluster.local("stop").args(&[coordinator, "--json"]).run().ok().json();
    assert_eq!(stopped["state"], "stopped", "it left by itself, in bounded time");
    let _ = run.wait().ok();
    data.check(&cluster, &job, "out");
    cluster.kill(&cluster.coordinator(&job));
    fetch_and_check(&cluster, &data, &job, "again");
}

#[test]
fn a_node_with_an_empty_disk_is_refilled_and_then_serves() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    let job = job_id(4);
    let _ = cluster.run_coffee(data.dir(), &job, "out").run().ok();
    cluster.kill("node-2");
    cluster.local("wipe-disk").args(&["node-2"]).run().ok();
    cluster.start("node-2");
    cluster.await_members();
    cluster.await_moves();
    // Three copies on three nodes: the node has everything now.
    cluster.kill("node-1");
    cluster.kill("node-3");
    let address = cluster.address("node-2");
    let out = path_text(&cluster.path("again"));
    wait_for("the refilled node to serve the result alone", 60, || {
        let result = cluster.cortado(&["result", &job, "--out", &out, "--connect", &address]).run();
        (result.code == Some(0)).then_some(())
    });
    data.check_reports(&cluster.path("again"));
}

#[test]
fn jobs_go_on_with_some_of_thirty_two_nodes() {
    let cluster = Cluster::up(32);
    let data = Coffee::new(Shape::TINY);
    let job = job_id(5);
    let _ = cluster.run_coffee(data.dir(), &job, "out").run().ok();
    data.check(&cluster, &job, "out");
}
