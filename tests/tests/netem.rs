//! `scripts/netem.sh` cuts and disturbs the network between containers during uploads. It does and
//! prints what its options say, the cluster is whole again without a restart, and the reports equal
//! the oracle's.
//!
//! Without an engine, or if the script lacks a tool or rights, the tests print that they were
//! skipped.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::time::Instant;

use tests::cluster::{Coffee, Shape, job_id, uploaded_percent, wait_for};
use tests::containers::{Containers, Hit};

/// Disturbs the network at 20 % of an upload, heals it, and checks the result.
fn upload_through(cluster: &Containers, data: &Coffee, job: u64, disturb: impl FnOnce(&str)) {
    let job = job_id(job);
    let run = cluster.run_coffee(data.dir(), &job, &job).upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 20);
    disturb(&job);
    let _ = cluster.netem(&["heal"]).unwrap();
    let healed = Instant::now();
    cluster.await_whole();
    println!("whole {:.2} s after it was healed", healed.elapsed().as_secs_f32());
    assert_eq!(lines(cluster), ["node-1", "node-2", "node-3"].map(hears_all), "all is undone");
    run.wait().ok();
    data.check(cluster, &job, &job);
}

fn lines(cluster: &Containers) -> Vec<String> {
    let status = cluster.netem(&["status"]).unwrap();
    // Removes the counts of packets, which differ in each run.
    status.lines().map(|line| line.split(" (").next().unwrap().to_owned()).collect()
}

fn hears_all(node: &str) -> String {
    format!("{node} hears everybody")
}

#[test]
fn the_network_of_containers_is_cut_disturbed_and_healed() {
    let Some(cluster) = Containers::up(3) else { return };
    if let Err(why) = cluster.netem(&["status"])
        && (why.contains("is missing") || why.contains("by root only"))
    {
        return eprintln!("skipped: {why}");
    }
    let data = Coffee::new(Shape::MIDDLE);
    let before = Hit::now(&cluster, "the network is disturbed");
    upload_through(&cluster, &data, 1, |_| {
        let told = cluster.netem(&["partition", "node-1"]).unwrap();
        assert!(told.starts_with("cut: node-1 | node-2,node-3"), "{told}");
        cluster.await_parts(&[&["node-1"], &["node-2", "node-3"]]);
        assert_eq!(
            lines(&cluster),
            [
                "node-1 does not hear node-2",
                "node-1 does not hear node-3",
                "node-2 does not hear node-1",
                "node-3 does not hear node-1",
            ]
        );
    });
    // Two cuts at once; the third node still reaches both.
    upload_through(&cluster, &data, 2, |job| {
        let _ = cluster.netem(&["oneway", "node-2", "node-3"]).unwrap();
        let _ = cluster.netem(&["loss", "20", "node-1"]).unwrap();
        let lines = lines(&cluster);
        assert!(lines.contains(&"node-3 does not hear node-2".to_owned()), "{lines:?}");
        assert!(lines.contains(&"node-2 loses 20 % from node-1".to_owned()), "{lines:?}");
        wait_for(&format!("most of job {job} to be durable"), 60, || {
            cluster.try_status(job).filter(|status| uploaded_percent(status) >= 60)
        });
    });
    // When its time is over, the script undoes only its own changes.
    upload_through(&cluster, &data, 3, |_| {
        let told = cluster.netem(&["partition", "node-1,node-2", "--for", "500ms"]).unwrap();
        assert!(told.ends_with("healed"), "{told}");
    });
    upload_through(&cluster, &data, 4, |_| {
        match cluster.netem(&["delay", "100ms", "node-2", "--for", "500ms"]) {
            Ok(told) => assert!(told.contains("what node-2 sends comes 100ms later"), "{told}"),
            // On a kernel without netem, nothing is half done, and the message names another way.
            Err(why) => assert!(why.contains("cortado chaos delay node-2 --ms 100"), "{why}"),
        }
    });
    let why = cluster.netem(&["loss", "20", "node-9"]).unwrap_err();
    assert!(why.contains("no node node-9 runs"), "{why}");
    before.expect_others_untouched(&cluster, &[]);
}
