//! Elections after crashes, returns and cuts, on a network that loses and doubles datagrams.

use cortado_membership::Profile;
use rand::RngExt;

use crate::world::{World, ms};
use crate::{PROFILES, Run, joined, quantiles};

/// A running cluster that follows its highest node.
fn led(seed: u64, count: usize, profile: Profile) -> World {
    let mut world = joined(seed, count, profile, ms(300));
    world.until(ms(5_000), World::all_follow).expect("the highest node leads");
    world
}

#[test]
fn the_next_highest_follows_a_dead_leader() {
    for (profile, p50_max, p99_max) in [(Profile::Lan, 1.4, 2.2), (Profile::Shared, 2.4, 4.5)] {
        let mut times = Vec::new();
        for seed in 0..150 {
            let _run = Run(seed, "the_next_highest_follows_a_dead_leader");
            let count = 2 + seed as usize % 8;
            let mut world = led(seed, count, profile);
            world.doubles = 0.2;
            // The nodes that would lead next may die together with the leader.
            let dying = 1 + seed as usize % (count - 1).min(3);
            (count - dying..count).for_each(|n| world.crash(n));
            times.push(world.until(ms(15_000), World::all_follow).expect("another one leads"));
        }
        let (p50, p99, _) = quantiles(&format!("lead taken over, {profile:?}"), times);
        assert!(p50 < p50_max && p99 < p99_max);
    }
}

#[test]
fn a_returning_leader_takes_over_in_a_later_term() {
    let mut times = Vec::new();
    for seed in 0..100 {
        let _run = Run(seed, "a_returning_leader_takes_over_in_a_later_term");
        let count = 2 + seed as usize % 8;
        let mut world = led(seed, count, PROFILES[seed as usize % 2]);
        let highest = count - 1;
        if seed % 3 == 0 {
            // A paused node does not notice that it was away.
            world.nodes[highest].paused = true;
        } else {
            world.crash(highest);
        }
        world.run_for(ms(8_000));
        let (leader, term) = world.member(0).leader().expect("someone leads");
        assert_eq!(leader, world.nodes[highest - 1].id);
        if seed % 3 == 0 {
            world.resume(highest);
        } else {
            world.start(highest);
        }
        times.push(world.until(ms(8_000), World::all_follow).expect("it leads again"));
        assert!(world.member(0).leader().expect("it leads").1 > term);
    }
    assert!(quantiles("lead taken back", times).1 < 5.0);
}

#[test]
fn each_side_of_a_cut_has_a_leader_and_the_whole_has_one_again() {
    let groups: [fn(usize) -> usize; 3] = [|n| n % 2, |n| n % 3, |n| n];
    let mut times = Vec::new();
    for seed in 0..150 {
        let _run = Run(seed, "each_side_of_a_cut_has_a_leader_and_the_whole_has_one_again");
        let count = 2 + seed as usize % 8;
        let group = groups[seed as usize % 3];
        let mut world = led(seed, count, Profile::Lan);
        world.split(group);
        let cut = world.rng.random_range(5_000..15_000);
        world.run_for(ms(cut));
        for n in 0..count {
            let highest = (0..count).rfind(|other| group(*other) == group(n)).expect("itself");
            let leader = world.member(n).leader().map(|(leader, _)| leader);
            assert_eq!(leader, Some(world.nodes[highest].id), "the highest of its side");
        }
        world.heal();
        times.push(world.until(ms(10_000), World::all_follow).expect("one leads"));
        world.run_for(ms(5_000));
        assert!(world.all_follow(), "and goes on");
    }
    assert!(quantiles("one leader after a cut", times).1 < 5.0);
}

#[test]
fn what_the_leader_gave_up_is_known_to_all_and_to_the_next_leader() {
    for seed in 0..60 {
        let _run = Run(seed, "what_the_leader_gave_up_is_known_to_all_and_to_the_next_leader");
        let count = 3 + seed as usize % 6;
        let mut world = led(seed, count, Profile::Lan);
        let now = world.now;
        let given_up = [world.nodes[0].id];
        world.crash(0);
        world.run_for(ms(3_000));
        let told = |world: &World, upto: usize| {
            (1..upto).all(|n| world.nodes[n].crash_looping == given_up)
        };
        world.give_up(count - 1, given_up.to_vec());
        world.until(ms(5_000), |world| told(world, count)).expect("all know");
        assert!(world.now - now < ms(6_000));
        world.crash(count - 1);
        world.until(ms(8_000), World::all_follow).expect("another one leads");
        world.run_for(ms(3_000));
        assert!(told(&world, count - 1), "and has taken it over");
        world.nodes[count - 1].crash_looping.clear();
        world.start(count - 1);
        world.until(ms(8_000), World::all_follow).expect("it leads again");
        world.run_for(ms(5_000));
        assert!(told(&world, count), "and was told what it had forgotten");
        world.start(0);
        world.until(ms(8_000), World::all_follow).expect("the operator has mended it");
        world.run_for(ms(3_000));
        assert!((0..count).all(|n| world.nodes[n].crash_looping.is_empty()), "it lives");
    }
}

#[test]
fn loss_doubles_one_way_cuts_and_bridges_cause_no_storm_and_end_with_one_leader() {
    for seed in 0..60 {
        let _run = Run(seed, "loss_doubles_one_way_cuts_and_bridges_cause_no_storm");
        let count = 3 + seed as usize % 5;
        let mut world = led(seed, count, PROFILES[seed as usize % 2]);
        let highest = count - 1;
        match seed % 3 {
            0 => (world.loss, world.doubles) = (0.2, 0.5),
            1 => (0..highest).for_each(|n| world.set_cut(n, highest, true)),
            _ => {
                world.set_cut(0, highest, true);
                world.set_cut(highest, 0, true);
            }
        }
        let before: Vec<u64> = world.nodes.iter().map(|node| node.sent).collect();
        world.run_for(ms(20_000));
        for (node, before) in world.nodes.iter().zip(before) {
            let rate = (node.sent - before) as f64 / 20.0;
            assert!(rate < 200.0, "{} sends {rate} packets per second", node.id);
        }
        world.heal();
        (world.loss, world.doubles) = (0.0, 0.0);
        world.until(ms(8_000), World::all_follow).expect("one leads once it is over");
    }
}
