//! The first simulation: three cores, virtual clock, one seed, loss and a crash.

use std::time::Duration;

use tests::sim::{Dials, Outcome, World};

const LIMIT: Duration = Duration::from_secs(120);

fn run(seed: u64, dials: Dials) -> Outcome {
    World::new(seed, dials).run(LIMIT).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

fn calm(nodes: usize) -> Dials {
    Dials { nodes, clients: 1, datagram_loss: 0.0, link_break_ms: 0, crashes: 0 }
}

#[test]
fn a_calm_cluster_of_any_size_gives_the_models_answer() {
    for nodes in 1..=5 {
        for seed in 0..3 {
            let outcome = run(seed, calm(nodes));
            assert_eq!((outcome.crashes, outcome.breaks), (0, 0));
        }
    }
}

#[test]
fn three_cores_with_loss_broken_links_and_a_crash_give_the_models_answer() {
    let (mut crashes, mut breaks) = (0, 0);
    for seed in 0..40 {
        let dials =
            Dials { nodes: 3, clients: 1, datagram_loss: 0.05, link_break_ms: 300, crashes: 1 };
        let outcome = run(seed, dials);
        crashes += outcome.crashes;
        breaks += outcome.breaks;
    }
    assert!(crashes > 20 && breaks > 100, "{crashes} crashes, {breaks} breaks");
}

#[test]
fn several_jobs_survive_several_crashes_of_five_nodes() {
    for seed in 100..120 {
        let dials =
            Dials { nodes: 5, clients: 3, datagram_loss: 0.1, link_break_ms: 500, crashes: 4 };
        run(seed, dials);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let dials = Dials { nodes: 3, clients: 2, datagram_loss: 0.1, link_break_ms: 200, crashes: 2 };
    assert_eq!(run(7, dials), run(7, dials));
    assert_ne!(run(7, dials).trace, run(8, dials).trace);
}
