//! A short run of `storm`: see `cargo run -p tests --bin storm -- --help`.

use std::time::Duration;

use tests::storm::Storm;

#[test]
fn a_storm_of_kills_leaves_every_result_exact() {
    let (duration, every) = (Duration::from_secs(16), Duration::from_secs(3));
    let report = Storm { seed: 7, duration, every, nodes: 5, clients: 4 }.run();
    println!("{report}");
    assert!(report.restarts.len() >= 3, "{} kills only", report.restarts.len());
    assert!(report.clients.iter().all(|client| !client.jobs.is_empty()));
}
