//! Failure detector and election in clusters of one to nine nodes, on a simulated network, with
//! hundreds of seeds.
//!
//! A failing run prints its seed; `World::new` with that seed repeats the run.

mod elections;
mod world;

use std::time::Duration;

use cortado_membership::{MemberState, Profile};
use rand::RngExt;
use world::{World, ms};

const PROFILES: [Profile; 2] = [Profile::Lan, Profile::Shared];

/// Prints the seed of a run that fails.
struct Run(u64, &'static str);

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed: {} with seed {}", self.1, self.0);
        }
    }
}

/// A running cluster whose nodes have found each other.
fn joined(seed: u64, count: usize, profile: Profile, spread: Duration) -> World {
    let mut world = World::new(seed, count, profile);
    world.start_all(spread);
    let took = world.until(ms(5_000), World::all_agree);
    assert!(took.is_some(), "{count} nodes did not find each other");
    // Timers of different nodes drift apart.
    let settle = ms(2_000 + world.rng.random_range(0..3_000));
    world.run_for(settle);
    assert!(world.all_agree());
    world
}

/// Prints and returns the median, the 99th percentile and the maximum, in seconds.
fn quantiles(what: &str, mut times: Vec<Duration>) -> (f64, f64, f64) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64();
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    println!("{what}: p50 {p50:.2} s, p99 {p99:.2} s, max {max:.2} s ({} runs)", times.len());
    (p50, p99, max)
}

#[test]
fn all_find_each_other() {
    let mut times = Vec::new();
    for seed in 0..200 {
        let _run = Run(seed, "all_find_each_other");
        let count = 1 + seed as usize % 9;
        let mut world = World::new(seed, count, PROFILES[seed as usize % 2]);
        world.loss = [0.0, 0.01, 0.2][seed as usize % 3];
        world.doubles = 0.2;
        world.start_all(if seed % 4 == 0 { Duration::ZERO } else { ms(1_000) });
        times.push(world.until(ms(10_000), World::all_agree).expect("all agree"));
    }
    assert!(quantiles("join", times).1 < 5.0);
}

#[test]
fn a_crash_is_known_everywhere() {
    for (profile, p50_max, p99_max) in [(Profile::Lan, 1.2, 2.0), (Profile::Shared, 2.2, 3.5)] {
        let mut times = Vec::new();
        for seed in 0..150 {
            let _run = Run(seed, "a_crash_is_known_everywhere");
            let count = 2 + seed as usize % 8;
            let mut world = joined(seed, count, profile, ms(300));
            let victim = world.rng.random_range(0..count);
            world.crash(victim);
            times.push(world.until(ms(10_000), World::all_agree).expect("the crash is seen"));
            let id = world.nodes[victim].id;
            for n in (0..count).filter(|n| *n != victim) {
                assert_eq!(world.view(n).get(id).map(|m| m.state), Some(MemberState::Down));
            }
        }
        let (p50, p99, _) = quantiles(&format!("crash known everywhere, {profile:?}"), times);
        assert!(p50 < p50_max && p99 < p99_max);
    }
}

#[test]
fn a_healed_cut_merges() {
    type Cut = (&'static str, fn(usize) -> usize);
    let cuts: [Cut; 4] = [
        ("halves", |n| n % 2),
        ("thirds", |n| n % 3),
        ("one alone", |n| usize::from(n == 0)),
        ("every node alone", |n| n),
    ];
    for profile in PROFILES {
        for (name, group) in cuts {
            let mut times = Vec::new();
            for seed in 0..200 {
                let _run = Run(seed, name);
                let count = 2 + seed as usize % 8;
                let aligned = seed % 3 == 0;
                let spread = if aligned { Duration::ZERO } else { ms(500) };
                let mut world = joined(seed, count, profile, spread);
                world.split(group);
                let cut = if aligned { 10_000 } else { world.rng.random_range(5_000..20_000) };
                world.run_for(ms(cut));
                assert!(!world.all_agree(), "the cut is seen");
                world.heal();
                times.push(world.until(ms(10_000), World::all_agree).expect("they merge"));
                world.run_for(ms(5_000));
                assert!(world.all_agree(), "and stay merged");
            }
            let (p50, p99, _) = quantiles(&format!("heal, {name}, {profile:?}"), times);
            assert!(p50 < 3.0 && p99 < 5.0, "{name}");
        }
    }
}

#[test]
fn four_nodes_that_start_and_heal_in_step_merge_every_time() {
    let mut times = Vec::new();
    for seed in 0..1_000 {
        let _run = Run(seed, "four_nodes_that_start_and_heal_in_step_merge_every_time");
        let mut world = World::new(seed, 4, Profile::Lan);
        world.loss = 0.0;
        world.start_all(Duration::ZERO);
        world.until(ms(5_000), World::all_agree).expect("all agree");
        world.split(|n| n / 2);
        world.run_for(ms(5_000));
        world.heal();
        times.push(world.until(ms(10_000), World::all_agree).expect("they merge"));
    }
    assert!(quantiles("heal in step", times).2 < 5.0);
}

#[test]
fn a_one_way_cut_and_a_bridge_do_no_lasting_harm() {
    for seed in 0..60 {
        let _run = Run(seed, "a_one_way_cut_and_a_bridge_do_no_lasting_harm");
        let count = 3 + seed as usize % 5;
        let mut world = joined(seed, count, Profile::Lan, ms(300));
        if seed % 2 == 0 {
            for from in 1..count {
                world.set_cut(from, 0, true);
            }
        } else {
            world.set_cut(0, 1, true);
            world.set_cut(1, 0, true);
        }
        let before: Vec<u64> = world.nodes.iter().map(|node| node.sent).collect();
        world.run_for(ms(20_000));
        for (node, before) in world.nodes.iter().zip(before) {
            let rate = (node.sent - before) as f64 / 20.0;
            assert!(rate < 200.0, "{} sends {rate} packets per second", node.id);
        }
        world.heal();
        world.until(ms(5_000), World::all_agree).expect("they merge");
    }
}

#[test]
fn most_of_the_cluster_may_die_at_once() {
    let mut times = Vec::new();
    for seed in 0..100 {
        let _run = Run(seed, "most_of_the_cluster_may_die_at_once");
        let count = 4 + seed as usize % 6;
        let mut world = joined(seed, count, Profile::Lan, ms(300));
        let survivors = world.rng.random_range(1..=count / 2);
        (survivors..count).for_each(|n| world.crash(n));
        times.push(world.until(ms(15_000), World::all_agree).expect("all deaths are seen"));
        (survivors..count).for_each(|n| world.start(n));
        world.until(ms(5_000), World::all_agree).expect("all are back");
    }
    assert!(quantiles("death of most", times).1 < 6.0);
}

#[test]
fn a_flapping_link_causes_no_storm() {
    for seed in 0..20 {
        let _run = Run(seed, "a_flapping_link_causes_no_storm");
        let mut world = joined(seed, 5, Profile::Lan, ms(300));
        let before: Vec<u64> = world.nodes.iter().map(|node| node.sent).collect();
        for _ in 0..15 {
            world.split(|n| n % 2);
            world.run_for(ms(2_000));
            world.heal();
            world.run_for(ms(2_000));
        }
        for (node, before) in world.nodes.iter().zip(before) {
            let rate = (node.sent - before) as f64 / 60.0;
            assert!(rate < 200.0, "{} sends {rate} packets per second", node.id);
        }
        world.until(ms(5_000), World::all_agree).expect("all agree");
    }
}

#[test]
fn a_restarted_node_is_back_at_once_whatever_its_clock_says() {
    for seed in 0..100 {
        let _run = Run(seed, "a_restarted_node_is_back_at_once_whatever_its_clock_says");
        let count = 2 + seed as usize % 6;
        let mut world = joined(seed, count, Profile::Lan, ms(300));
        let n = world.rng.random_range(0..count);
        world.crash(n);
        let away = world.rng.random_range(0..5_000);
        world.run_for(ms(away));
        world.nodes[n].skew_ms = [0, -3_600_000, 3_600_000, -3 * 86_400_000][seed as usize % 4];
        if seed % 8 == 1 {
            // A blank disk and a clock that is behind: the former generation is higher than the new
            // one.
            world.nodes[n].generation = None;
            world.nodes[n].known.clear();
        }
        world.start(n);
        world.until(ms(5_000), World::all_agree).expect("it is back");
        assert!(world.nodes.iter().all(|node| node.sent < 5_000), "no storm of renewals");
    }
}

/// The other nodes know each by a generation that is in the future for the other blank node.
#[test]
fn two_blank_nodes_whose_clocks_are_days_behind_see_each_other() {
    for seed in 0..40 {
        let _run = Run(seed, "two_blank_nodes_whose_clocks_are_days_behind_see_each_other");
        let count = 5 + seed as usize % 4;
        let mut world = joined(seed, count, Profile::Lan, ms(300));
        // Neither is a seed, so each learns of the other only from the other nodes.
        let blank = [count - 2, count - 1];
        for n in blank {
            world.crash(n);
            world.nodes[n].skew_ms = -3 * 86_400_000;
            world.nodes[n].generation = None;
            world.nodes[n].known.clear();
        }
        world.run_for(ms(seed * 100));
        blank.iter().for_each(|n| world.start(*n));
        world.until(ms(10_000), World::all_agree).expect("all see all");
    }
}

#[test]
fn a_long_pause_ends_with_everyone_back() {
    for seed in 0..60 {
        let _run = Run(seed, "a_long_pause_ends_with_everyone_back");
        let count = 3 + seed as usize % 5;
        let mut world = joined(seed, count, Profile::Lan, ms(300));
        world.nodes[0].paused = true;
        world.run_for(ms(30_000));
        for n in 1..count {
            assert_eq!(world.view(n).down(), [world.nodes[0].id]);
        }
        world.resume(0);
        world.until(ms(5_000), World::all_agree).expect("it is back");
        world.run_for(ms(3_000));
        assert!(world.all_agree());
    }
}

#[test]
fn a_short_stall_condemns_nobody() {
    for seed in 0..100 {
        let _run = Run(seed, "a_short_stall_condemns_nobody");
        let mut world = joined(seed, 5, Profile::Lan, ms(300));
        world.loss = 0.0;
        world.nodes[0].paused = true;
        world.run_for(ms(500));
        world.resume(0);
        world.run_for(ms(3_000));
        for n in 0..5 {
            assert_eq!(world.member(n).counters().renewed, 0);
        }
    }
}

#[test]
fn a_cluster_that_was_off_finds_itself_without_seeds() {
    for seed in 0..40 {
        let _run = Run(seed, "a_cluster_that_was_off_finds_itself_without_seeds");
        let count = 2 + seed as usize % 6;
        let mut world = joined(seed, count, Profile::Shared, ms(300));
        (0..count).for_each(|n| world.crash(n));
        world.run_for(ms(60_000));
        world.forget_seeds();
        world.start(0);
        world.run_for(ms(500));
        assert_eq!(world.view(0).down().len(), count - 1, "the first knows whom it misses");
        (1..count).for_each(|n| world.start(n));
        world.until(ms(5_000), World::all_agree).expect("all agree");
    }
}

#[test]
fn who_leaves_is_forgotten_and_who_drains_is_not() {
    for seed in 0..60 {
        let _run = Run(seed, "who_leaves_is_forgotten_and_who_drains_is_not");
        let count = 3 + seed as usize % 6;
        let mut world = joined(seed, count, Profile::Lan, ms(300));
        let id = world.nodes[1].id;
        world.set_draining(1, true);
        let drained = world.until(ms(1_000), |world| {
            (0..count)
                .all(|n| world.view(n).get(id).map(|m| m.state) == Some(MemberState::Draining))
        });
        drained.expect("all know that it drains");
        assert!(world.all_agree(), "a draining node is reachable");
        assert!(!world.view(0).live().contains(&id));
        world.leave(1);
        let gone =
            |world: &World| (0..count).filter(|n| *n != 1).all(|n| world.view(n).get(id).is_none());
        world.until(ms(1_000), gone).expect("all know that it left");
        world.run_for(ms(10_000));
        assert!(gone(&world) && world.all_agree());
        world.start(1);
        world.until(ms(5_000), World::all_agree).expect("it may come back");
    }
}

#[test]
fn a_quiet_cluster_sends_little() {
    for (profile, limit) in [(Profile::Lan, 25.0), (Profile::Shared, 12.0)] {
        let mut world = joined(7, 9, profile, ms(300));
        world.loss = 0.0;
        world.run_for(ms(10_000));
        let before: u64 = world.nodes.iter().map(|node| node.sent).sum();
        world.run_for(ms(60_000));
        let sent = world.nodes.iter().map(|node| node.sent).sum::<u64>() - before;
        let rate = sent as f64 / 60.0 / 9.0;
        println!("{profile:?}: {rate:.1} packets per second and node");
        assert!(rate < limit);
    }
}

#[test]
fn heavy_loss_and_doubles_are_survived() {
    for seed in 0..20 {
        let _run = Run(seed, "heavy_loss_and_doubles_are_survived");
        let mut world = World::new(seed, 5, Profile::Shared);
        (world.loss, world.doubles) = (0.2, 0.5);
        world.start_all(ms(300));
        world.run_for(ms(60_000));
        assert!(world.nodes.iter().all(|node| node.sent < 60 * 200), "bounded");
        (world.loss, world.doubles) = (0.0, 0.0);
        world.until(ms(5_000), World::all_agree).expect("all agree once it is over");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let trace = |seed| {
        let mut world = joined(seed, 5, Profile::Lan, ms(300));
        world.split(|n| n % 2);
        world.run_for(ms(5_000));
        world.heal();
        world.run_for(ms(5_000));
        world.trace
    };
    assert_eq!(trace(11), trace(11));
    assert_ne!(trace(11), trace(12));
}
