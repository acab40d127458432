//! Jobs that need more memory than there is fail with the number of bytes; other jobs are not
//! affected.

use std::fmt::Write;

use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text};

/// Outputs all rows unchanged: more than a coordinator's limit.
const ALL_ROWS: &str = "[[queries]]\noutput = \"all.csv\"\nfrom = \"x\"\nselect = [\"k\", \"n\"]\n";
/// Makes a group for each row and outputs three of them: more than the limit of a fold, with almost
/// no output.
const MANY_GROUPS: &str = "[[queries]]\noutput = \"top.csv\"\nfrom = \"x\"\ngroup_by = { k = \"k\" }\n\
                           aggregates = { s = \"sum(n)\" }\ntop = { n = 3, by = \"s desc\" }\n";

#[test]
fn a_job_that_needs_more_memory_than_there_is_fails_alone_and_says_so() {
    let cluster = Cluster::up_with(3, "memory_mib = 32");
    let small = Coffee::new(Shape::TINY);
    let before = cluster.processes();
    let data = cluster.path("big");
    std::fs::create_dir_all(&data).unwrap();
    let mut rows = String::from("k,n\n");
    (0..1_200_000).for_each(|n| writeln!(rows, "key-{n},{}", n % 1000).unwrap());
    std::fs::write(data.join("x.csv"), rows).unwrap();
    let table = "name = \"big\"\n[tables.x]\nfiles = \"x.csv\"\n[tables.x.columns]\n\
                 k = \"text\"\nn = \"int\"\n";
    let cases = [
        (ALL_ROWS, "query 'all.csv' has a result that does not fit"),
        (MANY_GROUPS, "query 'top.csv' has more groups or rows than fit"),
    ];
    for (at, (query, says)) in cases.into_iter().enumerate() {
        let plan = cluster.path(&format!("plan-{at}.toml"));
        std::fs::write(&plan, format!("{table}{query}")).unwrap();
        let (plan, dir, job) = (path_text(&plan), path_text(&data), job_id(at as u64 + 1));
        let big = cluster.cortado(&["run", &plan, "--data", &dir, "--job", &job]).spawn();
        // Small jobs are not affected.
        for turn in 0..3 {
            let name = format!("small-{at}-{turn}");
            let job = job_id(10 * (at as u64 + 1) + turn);
            cluster.run_coffee(small.dir(), &job, &name).run().ok();
            small.check_reports(&cluster.path(&name));
        }
        let failed = big.wait().exits(1, &[says, "memory_mib"]);
        assert!(failed.stderr.contains(" MiB"), "{}", failed.stderr);
        assert_eq!(cluster.status(&job)["state"], "failed");
    }
    assert_eq!(cluster.processes(), before, "no node died");
}
