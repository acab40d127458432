//! Disks of real processes that refuse to sync or return wrong bits. The reports still equal the
//! oracle's; a node fetches from other nodes what its disk has damaged.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tests::cluster::{Cluster, Coffee, FailingSync, Shape, job_id, path_text};

#[test]
fn a_node_whose_disk_fails_to_sync_stops_at_once_and_is_not_missed() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let disk = FailingSync::compile(&cluster.path(""));
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 10);
    // The loss of the job's coordinator has the largest effect.
    let victim = cluster.coordinator(&job);
    cluster.kill(&victim);
    cluster.start_with(&victim, &disk);
    cluster.await_upload(&job, 40);
    disk.fail();
    cluster.await_end(&victim);
    cluster.await_line(&victim, "the log failed; stopping at once");
    run.wait().ok();
    assert!(!cluster.is_running(&victim));
    data.check(&cluster, &job, "out");
    // With a working disk the node keeps its durable entries, and fetches the others.
    disk.mend();
    cluster.start_with(&victim, &disk);
    data.check_alone(&cluster, &victim, &[job]);
}

/// Flips a bit in the middle of a file's contents; the zeros allocated behind them do not count.
fn flip_a_bit(file: &Path, share: f64) {
    let bytes = std::fs::read(file).unwrap();
    // Behind the segment's header.
    let start = 4096;
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(end > start, "{} holds no records", file.display());
    let at = start + ((end - start) as f64 * share) as usize;
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_flipped_bit_on_the_disk_of_a_stopped_node_is_noticed_and_refilled() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 40);
    cluster.kill("node-2");
    flip_a_bit(cluster.segments("node-2").first().unwrap(), 0.5);
    cluster.start("node-2");
    cluster.await_line("node-2", "part of the log is damaged; peers refill it");
    run.wait().ok();
    data.check(&cluster, &job, "out");
    data.check_alone(&cluster, "node-2", &[job]);
}

#[test]
fn flipped_bits_in_finished_jobs_are_never_served() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    // The result is near the end.
    for (number, share) in [0.1, 0.35, 0.6, 0.85, 0.97].into_iter().enumerate() {
        cluster.await_moves();
        cluster.kill("node-2");
        for segment in cluster.segments("node-2") {
            flip_a_bit(&segment, share);
        }
        cluster.start("node-2");
        // While the node is refilled, it asks other nodes, or answers that it can't tell yet.
        let (address, out) = (cluster.address("node-2"), format!("again-{number}"));
        let folder = path_text(&cluster.path(&out));
        let arguments = ["result", &job, "--out", &folder, "--connect", &address];
        let result = cluster.cortado(&arguments).run();
        if result.code == Some(0) {
            data.check_reports(&cluster.path(&out));
        } else {
            assert_eq!(result.code, Some(5), "{}", result.stderr);
        }
    }
    data.check_alone(&cluster, "node-2", &[job]);
}
