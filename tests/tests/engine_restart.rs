//! The container engine is restarted during uploads. The reports are the oracle's, to the last byte.
//!
//! Each test has an engine of its own. Skipped, and it says so, where there can be none: that takes root,
//! `dockerd` and namespaces.

use std::time::Instant;

use rustix::process::{Signal, kill_process};
use tests::cluster::{Coffee, Shape, job_id, path_text, wait_for};
use tests::containers::{Containers, Hit, OwnEngine};

/// Seconds a client is patient, and a call may take then.
const PATIENCE: [u64; 2] = [60, 120];

/// Uploads, lets something happen at 30 % of it, and expects the right answer.
fn during_upload(cluster: &Containers, data: &Coffee, job: &str, fault: impl FnOnce()) {
    let [patience, limit] = PATIENCE;
    let run = cluster.run_coffee(data.dir(), job, job).args(&["--timeout", &patience.to_string()]);
    let run = run.upload_rate(Shape::SLOW).within(limit).spawn();
    cluster.await_upload(job, 30);
    fault();
    run.wait().ok();
    data.check(cluster, job, job);
}

fn revivals(cluster: &Containers) -> usize {
    cluster.events().iter().filter(|seen| seen["event"] == "reviving").count()
}

#[test]
fn containers_live_on_while_the_engine_is_restarted() {
    let test = "containers_live_on_while_the_engine_is_restarted";
    let Some(mut engine) = OwnEngine::inside(test, true) else { return };
    let cluster = Containers::up(3).expect("there is an engine");
    let data = Coffee::new(Shape::MIDDLE);
    during_upload(&cluster, &data, &job_id(1), || {
        let hit = Hit::now(&cluster, "the engine is restarted");
        engine.restart(|| ());
        hit.expect_others_untouched(&cluster, &[]);
    });
    assert_eq!(revivals(&cluster), 0);
    // Ports published on loopback are served by the engine, so clients that come by them have to wait.
    // Nobody else notices.
    let job = job_id(2);
    let direct = cluster.inner_addresses().join(",");
    let run = cluster.run_coffee(data.dir(), &job, "direct").args(&["--connect", &direct]);
    let run = run.upload_rate(Shape::SLOW / 3).spawn();
    cluster.await_upload(&job, 20);
    let killed = cluster.supervisor(60);
    let process = cluster.process(&killed);
    let hit = Hit::now(&cluster, "the supervisor is killed while the engine is away");
    engine.restart(|| {
        kill_process(process, Signal::KILL).expect("it runs");
        let ask = |arguments: &[&str]| {
            let asked = cluster.cortado(arguments).args(&["--json", "--connect", &direct]).run();
            (asked.code == Some(0)).then(|| asked.json())
        };
        wait_for("the others to miss it", 60, || {
            let nodes = ask(&["nodes"])?;
            let mut members = nodes["members"].as_array()?.iter();
            members.find(|member| member["id"] == *killed && member["state"] == "down").map(|_| ())
        });
        wait_for("the upload to end", 60, || {
            ask(&["status", &job]).filter(|status| status["state"] != "uploading")
        });
    });
    let back = Instant::now();
    hit.await_back(&cluster, &[&killed]);
    println!("… {:.2} s after the engine answered", back.elapsed().as_secs_f32());
    run.wait().ok();
    data.check(&cluster, &job, "direct");
    assert_eq!(revivals(&cluster), 1);
}

#[test]
fn a_cluster_that_was_stopped_with_the_engine_goes_on_where_it_was() {
    let test = "a_cluster_that_was_stopped_with_the_engine_goes_on_where_it_was";
    let Some(mut engine) = OwnEngine::inside(test, false) else { return };
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
        let (out, address) = (path_text(&cluster.path(&name)), cluster.address(&name));
        cluster.cortado(&["result", &job_id(1), "--out", &out, "--connect", &address]).run().ok();
        data.check_reports(&cluster.path(&name));
    }
    assert_eq!(revivals(&cluster), 0);
}
