//! Full disks of real processes.

use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, wait_for};

/// About 25 MB, of which each of three nodes logs about 2.4 MB.
const MANY_USERS: Shape = Shape { transactions_per_month: 30_000, users: 300_000, seed: 3 };

/// Four times as much.
const TOO_MANY_USERS: Shape = Shape { transactions_per_month: 120_000, users: 1_200_000, seed: 4 };

#[test]
fn full_disks_hold_back_clients_and_nothing_else() {
    // The log's first segment takes 4 MiB and the reserve 2. One upload fits on each disk, two at once
    // fit on the larger ones, and the large upload fits on none.
    let settings = "disk_reserve_mib = 2";
    let Some(cluster) = Cluster::up_on_small_disks(&[6_656, 9_216, 9_216], settings) else {
        return;
    };
    let data = Coffee::new(MANY_USERS);
    let jobs: Vec<_> = (1..=3).map(job_id).collect();
    let processes = cluster.processes();

    // With one of three disks full, two copies are still made.
    let runs = jobs[..2].iter().map(|job| cluster.run_coffee(data.dir(), job, job).spawn());
    for run in runs.collect::<Vec<_>>() {
        run.wait().ok();
    }
    cluster.await_line("node-1", "the log refused records");
    for job in &jobs[..2] {
        data.check(&cluster, job, job);
    }

    // All disks are full: the client says so and waits. Everything else continues.
    let large = Coffee::new(TOO_MANY_USERS);
    let mut third = cluster.run_coffee(large.dir(), &jobs[2], &jobs[2]).within(120).spawn();
    wait_for("the client to be told that disks are full", 60, || {
        third.stderr().contains("disk full: free space on the nodes").then_some(())
    });
    for name in ["node-1", "node-2", "node-3"] {
        let out = format!("meanwhile-{name}");
        let folder = path_text(&cluster.path(&out));
        let address = cluster.address(name);
        cluster.cortado(&["result", &jobs[0], "--out", &folder, "--connect", &address]).run().ok();
        data.check_reports(&cluster.path(&out));
    }
    assert!(third.is_running(), "{}", third.stderr());
    assert_eq!(cluster.status(&jobs[2])["state"], "uploading");

    // Room on two disks lets the upload continue; room on the last disk lets its node catch up.
    cluster.enlarge_disk("node-2", 65_536);
    cluster.enlarge_disk("node-3", 65_536);
    third.wait().ok();
    large.check(&cluster, &jobs[2], &jobs[2]);
    cluster.enlarge_disk("node-1", 65_536);
    assert_eq!(cluster.processes(), processes, "nobody died of a full disk");
    large.check_alone(&cluster, "node-1", &jobs[2..]);
    for job in &jobs[..2] {
        let folder = cluster.path(&format!("alone-{job}"));
        let address = cluster.address("node-1");
        let out = path_text(&folder);
        cluster.cortado(&["result", job, "--out", &out, "--connect", &address]).run().ok();
        data.check_reports(&folder);
    }
}
