//! A short run of scripts/chaos.sh.

use std::time::Duration;

use tests::chaos::Chaos;
use tests::cluster::Cluster;

#[test]
fn random_trouble_of_every_kind_leaves_every_result_exact() {
    let cluster = Cluster::up_for_trouble(5);
    let (profile, duration) = (cluster.dir(), Duration::from_secs(15));
    let report = Chaos { profile, duration, seed: 12, clients: 2, only: Vec::new() }.run();
    println!("{report}");
    assert!(report.acts.len() >= 3, "{} pieces of trouble only", report.acts.len());
    assert!(!report.recoveries.is_empty(), "nobody was killed");
    assert!(report.clients.iter().all(|client| !client.jobs.is_empty()));
}
