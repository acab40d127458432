//! Clusters of any size give the same result and report their sizes.

use tests::cluster::{Cluster, Coffee, Shape, job_id};

/// Runs a job on a new cluster and checks its result.
fn run_on(nodes: usize, data: &Coffee) -> Cluster {
    let cluster = Cluster::up(nodes);
    let job = job_id(nodes as u64);
    let _ = cluster.run_coffee(data.dir(), &job, "out").run().ok();
    data.check(&cluster, &job, "out");
    cluster
}

#[test]
fn clusters_of_any_size_give_the_same_bytes() {
    let data = Coffee::new(Shape { transactions_per_month: 8_000, users: 5_000, seed: 3 });
    for nodes in [1, 2, 3, 5, 8] {
        let cluster = run_on(nodes, &data);
        let view = cluster.json(&["nodes"]);
        assert_eq!(view["members"].as_array().unwrap().len(), nodes);
        // With fewer nodes than copies, R and W are lowered to the number of nodes.
        assert_eq!(view["replicas"], nodes.min(3));
        assert_eq!(view["min_copies"], nodes.min(2));
    }
}
