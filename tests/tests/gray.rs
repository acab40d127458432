//! Gray failures: nodes that are alive by their membership and of no use otherwise.

use std::time::Instant;

use serde_json::Value;
use tests::cluster::{Cluster, Coffee, Shape, job_id, wait_for};

/// Seconds until everybody knows; it should be three. Small machines get more.
const KNOWN: u64 = 20;
/// Longer than the test: trouble ends because it is healed.
const LONG: &str = "10m";

/// Waits until a node sees this one member in this state, with this in the reason, and all others alive.
fn await_state(cluster: &Cluster, seen_by: &str, node: &str, (state, says): (&str, &str)) {
    wait_for(&format!("{seen_by} to see {node} {state} and the others alive"), KNOWN, || {
        let address = cluster.address(seen_by);
        let run = cluster.cortado(&["nodes", "--json", "--connect", &address]).run();
        let view: Value = serde_json::from_str(&run.stdout).ok()?;
        let right = |member: &Value| {
            let reason = member["reason"].as_str().unwrap_or_default();
            if member["id"] == node {
                member["state"] == state && reason.contains(says)
            } else {
                member["state"] == "alive"
            }
        };
        view["members"].as_array()?.iter().all(right).then_some(())
    });
}

/// One node of five is disturbed: it is called ill with the reason, jobs end exactly, and it is well
/// again when it is healed. Prints how long things took. Nothing is said of restarts: a supervisor
/// restarts a node that is ill for half a minute, and a slow machine may take that long.
fn is_passed_over(
    cluster: &Cluster,
    data: &Coffee,
    number: u64,
    node: &str,
    fault: &[&str],
    says: &str,
) {
    let what = fault.join(" ");
    let witness = if node == "node-1" { "node-3" } else { "node-1" };
    let mut arguments = fault.to_vec();
    arguments.extend([node, "--for", LONG]);
    cluster.chaos(&arguments);
    let began = Instant::now();
    if fault[0] == "disk-hang" {
        // A disk that has nothing to write is not seen to hang: the first job does that.
        let _ = cluster.run_coffee(data.dir(), &job_id(number), &what).within(60).run().ok();
    }
    await_state(cluster, witness, node, ("ill", says));
    let known = began.elapsed();
    let mut slowest = 0.0_f32;
    for job in number + 1..number + 4 {
        let began = Instant::now();
        let out = format!("{node}-{job}");
        let _ = cluster.run_coffee(data.dir(), &job_id(job), &out).within(60).run().ok();
        slowest = slowest.max(began.elapsed().as_secs_f32());
        data.check(cluster, &job_id(job), &out);
    }
    println!("{what} {node}: ill after {:.2} s, slowest job {slowest:.2} s", known.as_secs_f32());
    cluster.chaos(&["heal"]);
    await_state(cluster, witness, node, ("alive", ""));
}

#[test]
fn a_node_that_is_half_dead_is_called_ill_and_stops_no_job() {
    let cluster = Cluster::up_for_trouble(5);
    let data = Coffee::new(Shape::TINY);
    // By its own word, or by that of the others.
    let links = "data port";
    is_passed_over(&cluster, &data, 100, "node-2", &["data-cut"], links);
    is_passed_over(&cluster, &data, 200, "node-3", &["data-cut", "--oneway", "in"], links);
    is_passed_over(&cluster, &data, 300, "node-1", &["loop-stall"], "its loop has stood still for");
    // The highest name supervises: the lead goes to another one and comes back.
    let supervisor = cluster.supervisor(20);
    is_passed_over(
        &cluster,
        &data,
        400,
        &supervisor,
        &["disk-hang"],
        "its disk has not answered for",
    );
}
