//! A slow node is neither marked as down nor replaced, the results are right, and jobs are delayed
//! for a bounded time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Coffee, Deadline, Shape, alongside, job_id};

/// Jobs measured in each state; the median is compared.
const JOBS: u64 = 3;
/// Upload rate in bytes per second at which no batch waits for another.
const PACED: u64 = 32_000_000;
/// A slow node runs for one of so many intervals.
const STARVED: u32 = 10;
/// Limit of a job's duration if one node answers late, as a multiple of its duration without a
/// fault.
const TIMES: u32 = 3;
const MORE: Duration = Duration::from_secs(5);
/// Limit of a job's duration if a node gets little processor time: the job has to wait for that
/// node's batches.
const STARVED_LIMIT: Duration = Duration::from_secs(30);

/// Runs jobs one after the other and returns the median duration. Prints the latencies of batches
/// that do not wait for each other.
fn typical_job(cluster: &Cluster, data: &Coffee, first: u64, what: &str) -> Duration {
    let watched = data.upload_watched(cluster, &job_id(first + JOBS), PACED);
    println!(
        "{what}: {} batches, the later half durable after {:.1?} (p50), {:.1?} (p90), {:.1?} (p99)",
        watched.latencies.len(),
        watched.latency(50),
        watched.latency(90),
        watched.latency(99)
    );
    let run = |number| {
        let job = job_id(number);
        let began = Instant::now();
        cluster.run_coffee(data.dir(), &job, &job).run().ok();
        let took = began.elapsed();
        data.check(cluster, &job, &job);
        took
    };
    let mut times: Vec<_> = (first..first + JOBS).map(run).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Lets a node run only for a small part of the time while `during` runs.
fn starving<T>(cluster: &Cluster, name: &str, during: impl FnOnce() -> T) -> T {
    let starve = |over: &AtomicBool| {
        let deadline = Deadline::after(300);
        while !over.load(Ordering::Relaxed) {
            cluster.pause(name);
            for _ in 1..STARVED {
                let _ = deadline.next_look();
            }
            cluster.resume(name);
            assert!(deadline.next_look(), "the jobs take for ever");
        }
    };
    alongside(starve, during).0
}

#[test]
fn one_slow_node_is_not_replaced_and_holds_the_others_up_for_a_bounded_time() {
    let cluster = Cluster::up_for_trouble(5);
    let data = Coffee::new(Shape { transactions_per_month: 120_000, ..Shape::MIDDLE });
    let processes = cluster.processes();
    let well = typical_job(&cluster, &data, 1, "all well");
    cluster.chaos(&["delay", "node-2", "--ms", "300", "--for", "10m"]);
    let late = typical_job(&cluster, &data, 11, "one 300 ms late");
    cluster.chaos(&["heal"]);
    let starved = starving(&cluster, "node-2", || {
        typical_job(&cluster, &data, 21, "one with a tenth of the time")
    });
    println!(
        "a job takes {well:.2?}, {late:.2?} if a node sends 300 ms late, {starved:.2?} if one gets a tenth of the time"
    );
    assert!(late < TIMES * well + MORE, "{late:?} instead of {well:?}");
    assert!(starved < STARVED_LIMIT, "{starved:?} instead of {well:?}");
    assert_eq!(cluster.processes(), processes, "a slow node was restarted");
    cluster.await_members();
}
