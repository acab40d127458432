//! Nodes in containers are killed, paused, cut off, emptied and stopped during uploads. The engine
//! brings them back, no other node is started, and the reports equal the oracle's byte for byte.
//!
//! Without an engine, the tests print that they were skipped; `CORTADO_REQUIRE_DOCKER=1` makes that
//! a failure. `CORTADO_LONG=1` runs the long form: five rounds of restarts, and an engine that is
//! gone or hangs for 30 s.

use std::time::{Duration, Instant};

use tests::cluster::{Coffee, Http, Shape, job_id, path_text, wait_for};
use tests::containers::{Containers, Hit, compose_files};

/// Time limit for a supervisor to be elected, in seconds.
const SUPERVISOR: u64 = 60;

/// Whether to run the long form.
fn long() -> bool {
    std::env::var_os("CORTADO_LONG").is_some_and(|value| value == "1")
}

/// Uploads, causes a fault during the upload, and checks the result.
fn during_upload(cluster: &Containers, data: &Coffee, job: u64, fault: impl FnOnce(&str)) {
    let job = job_id(job);
    let run = cluster.run_coffee(data.dir(), &job, &job);
    data.upload_through(cluster, &job, run, || fault(&job));
}

/// Kills nodes and waits until they are back.
fn kill(cluster: &Containers, what: &'static str, names: &[&str]) {
    let hit = Hit::now(cluster, what);
    cluster.kill(names);
    hit.await_back(cluster, names);
}

#[test]
fn the_compose_file_is_what_the_script_writes() {
    let [written, kept] = compose_files(5);
    assert_eq!(written, kept, "run scripts/compose.sh");
}

#[test]
fn compose_alone_makes_a_cluster_and_says_where_it_is() {
    let Some(cluster) = Containers::up(2) else { return };
    let said = cluster.greeting();
    let profile = path_text(&cluster.dir());
    assert!(
        said.contains(&format!("2 nodes; the profile for clients is {profile} (new)")),
        "{said}"
    );
    let key = |node: &str| std::fs::read(cluster.dir().join(node).join("node.key")).unwrap();
    let (keys, nodes) = (["node-1", "node-2"].map(key), cluster.states());
    assert!(nodes.values().all(|node| node.confined), "{nodes:?}");
    during_upload(&cluster, &Coffee::new(Shape::MIDDLE), 1, |_| ());
    // The live page of each node is where members say that it is: at a port of this host.
    let members = cluster.json(&["nodes"])["members"].clone();
    for member in members.as_array().unwrap() {
        let addr = member["http_addr"].as_str().unwrap().parse().unwrap();
        let page = Http::at(addr).get("/");
        assert!(page.status == 200 && page.body.contains("<title>"), "{page:?}");
        assert_eq!(Http::at(addr).get("/api/v1/nodes").json()["answered_by"], member["id"]);
    }
    // A second start changes no file and restarts no node.
    cluster.start_all();
    assert!(cluster.greeting().contains("there already"), "{}", cluster.greeting());
    assert_eq!((["node-1", "node-2"].map(key), cluster.states()), (keys, nodes));
    cluster.down();
    assert_eq!(cluster.remains(), Vec::<String>::new());
}

#[test]
fn killed_containers_are_back_and_the_answers_are_right() {
    let Some(cluster) = Containers::up(5) else { return };
    let data = Coffee::new(Shape::MIDDLE);
    during_upload(&cluster, &data, 1, |job| {
        let roles = [cluster.coordinator(job), cluster.supervisor(SUPERVISOR)];
        let names = cluster.names();
        let worker = names.iter().find(|name| !roles.contains(name)).unwrap();
        kill(&cluster, "a worker is killed", &[worker]);
    });
    during_upload(&cluster, &data, 2, |job| {
        kill(&cluster, "a job's coordinator is killed", &[&cluster.coordinator(job)]);
    });
    during_upload(&cluster, &data, 3, |_| {
        kill(&cluster, "the supervisor is killed", &[&cluster.supervisor(SUPERVISOR)]);
    });
    during_upload(&cluster, &data, 4, |_| {
        kill(&cluster, "all but one are killed", &["node-1", "node-2", "node-4", "node-5"]);
    });
    // The operator removes the cluster: no node is brought back.
    cluster.down();
    assert_eq!(cluster.remains(), Vec::<String>::new());
}

#[test]
fn paused_cut_off_and_emptied_containers_are_whole_again() {
    let Some(cluster) = Containers::up(4) else { return };
    let data = Coffee::new(Shape::MIDDLE);
    during_upload(&cluster, &data, 1, |job| {
        let coordinator = cluster.coordinator(job);
        let hit = Hit::now(&cluster, "a node is paused");
        cluster.pause(&coordinator);
        // The pause is longer than the failure timeout: the node is killed and started.
        hit.await_back(&cluster, &[&coordinator]);
    });
    during_upload(&cluster, &data, 2, |_| {
        let cut = ["node-2", "node-3"];
        let before = Hit::now(&cluster, "two nodes are cut off");
        cut.iter().for_each(|name| cluster.disconnect(name));
        for name in cut {
            let left = cluster.await_event("left_alone", name);
            assert!(left["reason"].as_str().unwrap().contains("well"), "{left}");
        }
        let healed = Instant::now();
        // The engine gives out the lowest free address. In this order, each node gets the other's
        // old address.
        let mut turn = cut;
        turn.sort_by_key(|name| std::cmp::Reverse(before.address(name).to_owned()));
        turn.iter().for_each(|name| cluster.connect(name));
        cluster.await_whole();
        let whole = healed.elapsed().as_secs_f32();
        let moved = cut.map(|name| before.address(name) != cluster.state(name).address);
        println!(
            "two nodes are cut off: whole {whole:.2} s after that; other addresses: {moved:?}"
        );
        before.expect_others_untouched(&cluster, &[]);
    });
    // Data reaches the new addresses too: all copies get to their owners.
    cluster.await_moves();
    during_upload(&cluster, &data, 3, |_| {
        cluster.await_whole();
        cluster.stop("node-3");
        assert_eq!(cluster.state("node-3").exit_code, 0);
        let began = Instant::now();
        cluster.replace_disk("node-3");
        cluster.await_whole();
        let whole = began.elapsed();
        cluster.await_moves();
        println!(
            "a disk is replaced: whole {:.2} s after the start, all copies there after {:.2} s",
            whole.as_secs_f32(),
            began.elapsed().as_secs_f32()
        );
    });
    cluster.check_result(&data, &job_id(1), "node-3");
    // A node that the operator stopped is started only by the operator.
    assert!(
        cluster.events().iter().all(|seen| seen["event"] != "reviving" || seen["node"] != "node-3")
    );
}

#[test]
fn nodes_are_restarted_one_after_the_other_under_load() {
    let Some(cluster) = Containers::up(4) else { return };
    let data = Coffee::new(Shape::MIDDLE);
    let patience = cluster.state("node-1").stop_seconds;
    assert!(patience > Some(20), "less than a drain may take: {patience:?}");
    data.uploads_during(&cluster, Shape::SLOW / 3, || {
        for _ in 0..if long() { 5 } else { 1 } {
            for name in cluster.names() {
                let began = Instant::now();
                cluster.stop(&name);
                let stopped = began.elapsed();
                assert_eq!(cluster.state(&name).exit_code, 0, "handed over in time");
                cluster.start(&name);
                cluster.await_whole();
                let whole = began.elapsed();
                cluster.await_moves();
                println!(
                    "{name} is restarted: stopped after {:.2} s, whole after {:.2} s, all in place after {:.2} s",
                    stopped.as_secs_f32(),
                    whole.as_secs_f32(),
                    began.elapsed().as_secs_f32()
                );
            }
        }
    });
    assert!(
        cluster.events().iter().all(|seen| seen["event"] != "reviving"),
        "who was stopped stays down"
    );
}

#[test]
fn the_engine_is_gone_for_a_while_and_the_data_path_does_not_care() {
    let Some(mut cluster) = Containers::up_behind_proxy(3) else { return };
    without_engine(&mut cluster, Containers::close_engine, Containers::open_engine, 6);
}

#[test]
fn the_engine_hangs_for_a_while_and_the_data_path_does_not_care() {
    let Some(mut cluster) = Containers::up_behind_proxy(3) else { return };
    let (stall, wake) =
        (|c: &mut Containers| c.stall_engine(), |c: &mut Containers| c.wake_engine());
    without_engine(&mut cluster, stall, wake, 0);
}

/// Uploads while the engine is away, for at least so many seconds. A node that is killed meanwhile
/// stays down until the engine is back.
fn without_engine(
    cluster: &mut Containers,
    take: impl FnOnce(&mut Containers),
    give: impl FnOnce(&mut Containers),
    seconds: u64,
) {
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 30);
    take(cluster);
    let gone = Instant::now();
    let hit = Hit::now(cluster, "the engine is away, a node is killed");
    cluster.kill(&["node-1"]);
    run.wait().ok();
    data.check(cluster, &job, "out");
    let left = cluster.await_event("left_alone", "node-1");
    let reason = left["reason"].as_str();
    assert!(reason.is_some_and(|why| why.contains("nothing is known")), "{left}");
    let limit = Duration::from_secs(if long() { 30 } else { seconds });
    wait_for("the engine to have been away for long enough", 60, || {
        (gone.elapsed() >= limit).then_some(())
    });
    assert_eq!(cluster.state("node-1").status, "exited", "nobody could start it");
    let away = gone.elapsed().as_secs_f32();
    give(cluster);
    let back = Instant::now();
    hit.await_back(cluster, &["node-1"]);
    let healed = back.elapsed().as_secs_f32();
    println!("… {healed:.2} s after the engine was back, which was away for {away:.2} s");
    cluster.check_result(&data, &job, "node-1");
}
