//! A plan of a user's own goes the same way as the one that ships.

use tests::cluster::{Cluster, job_id, path_text};

#[path = "../../engine/tests/support/mod.rs"]
mod support;

#[test]
fn a_second_plan_equals_an_independent_computation() {
    let cluster = Cluster::up(3);
    let plan = cluster.path("rides.toml");
    std::fs::write(&plan, support::rides::PLAN).unwrap();
    for seed in 1..=3 {
        let data = cluster.path(&format!("data-{seed}"));
        let dataset = support::rides::dataset(&mut support::Random(seed), 5_000);
        for (name, bytes) in dataset.iter().flatten() {
            let path = data.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let (job, out) = (job_id(seed), cluster.path(&format!("out-{seed}")));
        let (plan, dir, out_dir) = (path_text(&plan), path_text(&data), path_text(&out));
        let arguments = ["run", &plan, "--data", &dir, "--job", &job, "--out", &out_dir];
        cluster.cortado(&arguments).run().ok();
        for (name, expected) in support::rides::reports(&dataset) {
            assert_eq!(std::fs::read_to_string(out.join(name)).unwrap(), expected, "{name}");
        }
        let verified = cluster.json(&["verify", &job, "--recompute", &dir]);
        assert_eq!(verified["ok"], true, "{verified}");
    }
}
