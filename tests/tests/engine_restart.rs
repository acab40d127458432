//! The container engine is restarted during uploads. The reports equal the oracle's byte for byte.
//!
//! Each test has its own engine. It needs root, `dockerd` and namespaces; otherwise it prints that
//! it was skipped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process, test_kill_process};
use tests::cluster::{Coffee, Shape, job_id, wait_for};
use tests::containers::{Containers, Hit, OwnEngine};

/// Seconds for which a client keeps trying, and the time limit of the call.
const PATIENCE: [u64; 2] = [60, 120];

/// Uploads, causes a fault during the upload, and checks the result.
fn during_upload(cluster: &Containers, data: &Coffee, job: &str, fault: impl FnOnce()) {
    let [patience, limit] = PATIENCE;
    let run = cluster.run_coffee(data.dir(), job, job).args(&["--timeout", &patience.to_string()]);
    data.upload_through(cluster, job, run.within(limit), fault);
}

/// The events about nodes that ended.
fn troubles(cluster: &Containers) -> BTreeSet<String> {
    let seen =
        cluster.events().into_iter().filter_map(|seen| Some(seen["event"].as_str()?.to_owned()));
    seen.filter(|event| ["member_down", "reviving"].contains(&&**event)).collect()
}

#[test]
fn containers_live_on_while_the_engine_is_restarted() {
    let test = "containers_live_on_while_the_engine_is_restarted";
    // The lookup of a name without an answer takes longer than a container may take to stop.
    let patient = ["timeout:30", "attempts:2"].as_slice();
    let settings = [("live-restore", true.into()), ("dns-opts", patient.into())];
    let Some(mut engine) = OwnEngine::inside(test, &settings) else { return };
    let cluster = Containers::up(3).expect("there is an engine");
    let data = Coffee::new(Shape::MIDDLE);
    // Processes of the engine serve the published ports, so clients have to wait.
    during_upload(&cluster, &data, &job_id(1), || {
        let hit = Hit::now(&cluster, "the engine is restarted");
        engine.restart(|| ());
        engine.crash(|| ());
        hit.expect_others_untouched(&cluster, &[]);
    });
    // A node that is asked to stop meanwhile stays down.
    let process = cluster.process("node-3");
    engine.restart(|| {
        kill_process(process, Signal::TERM).expect("it runs");
        wait_for("node-3 to end", 30, || test_kill_process(process).err());
    });
    let state = cluster.state("node-3");
    assert_eq!((&*state.status, state.exit_code), ("exited", 0));
    cluster.await_whole();
    assert_eq!(troubles(&cluster), BTreeSet::new());
    // The other nodes look up the name of a node that is down, from a resolver that does not
    // answer. A node that stops must not wait for the lookup, or it would be killed first.
    let down = Instant::now();
    let asking = Duration::from_secs(5);
    wait_for("names to be looked up in vain", 10, || (down.elapsed() > asking).then_some(()));
    let asked = Instant::now();
    cluster.stop("node-2");
    println!(
        "a node that looks up names in vain has stopped after {:.2} s",
        asked.elapsed().as_secs_f32()
    );
    assert_eq!(cluster.state("node-2").exit_code, 0);
}

#[test]
fn a_node_that_is_killed_while_the_engine_is_away_is_brought_back() {
    let test = "a_node_that_is_killed_while_the_engine_is_away_is_brought_back";
    // The kernel serves the published ports, so clients notice nothing.
    let settings = [("live-restore", true.into()), ("userland-proxy", false.into())];
    let Some(mut engine) = OwnEngine::inside(test, &settings) else { return };
    let cluster = Containers::up(3).expect("there is an engine");
    let data = Coffee::new(Shape::MIDDLE);
    during_upload(&cluster, &data, &job_id(1), || {
        let killed = cluster.supervisor(60);
        let names = cluster.names();
        let others: Vec<_> = names.iter().map(String::as_str).filter(|n| *n != killed).collect();
        let process = cluster.process(&killed);
        let hit = Hit::now(&cluster, "the engine is away, the supervisor is killed");
        engine.restart(|| {
            kill_process(process, Signal::KILL).expect("it runs");
            cluster.await_parts(&[&others]);
            cluster.await_state(&job_id(1), "done");
        });
        let back = Instant::now();
        hit.await_back(&cluster, &[&killed]);
        println!("… {:.2} s after the engine answered", back.elapsed().as_secs_f32());
    });
    assert_eq!(troubles(&cluster), BTreeSet::from(["member_down".into(), "reviving".into()]));
}

#[test]
fn a_cluster_that_was_stopped_with_the_engine_goes_on_where_it_was() {
    let test = "a_cluster_that_was_stopped_with_the_engine_goes_on_where_it_was";
    let Some(mut engine) = OwnEngine::inside(test, &[]) else { return };
    let cluster = Containers::up(3).expect("there is an engine");
    let data = Coffee::new(Shape::MIDDLE);
    during_upload(&cluster, &data, &job_id(1), || ());
    during_upload(&cluster, &data, &job_id(2), || {
        engine.restart(|| ());
        for (name, state) in cluster.states() {
            assert_eq!((&*state.status, state.exit_code), ("exited", 0), "{name}");
        }
        let back = Instant::now();
        cluster.start_all();
        println!("whole {:.2} s after `docker compose up`", back.elapsed().as_secs_f32());
    });
    for name in cluster.names() {
        cluster.check_result(&data, &job_id(1), &name);
    }
    assert!(!troubles(&cluster).contains("reviving"));
}
