//! A user's plan is handled like the built-in one.

use tests::cluster::{Cluster, job_id, path_text};

/// The dataset and the reports in this repository, which people can read.
#[test]
fn the_sample_gives_the_reports_that_stand_beside_it() {
    let cluster = Cluster::up(3);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (data, expected) = (path_text(&root.join("data/sample")), root.join("results/sample"));
    let (job, out) = (job_id(1), cluster.path("out"));
    let arguments = ["run", "coffee", "--data", &data, "--job", &job, "--out", &path_text(&out)];
    cluster.cortado(&arguments).run().ok();
    let names = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&out), names(&expected));
    for name in names(&out) {
        let read = |folder: &std::path::Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        assert_eq!(read(&out), read(&expected), "{}", name.display());
    }
}

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
