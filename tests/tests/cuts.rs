//! Cut and disturbed networks between real nodes, below QUIC (`cortado chaos`).

use std::collections::BTreeMap;
use std::time::Instant;

use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, uploaded_percent, wait_for};

/// Time limit in seconds for both sides of a cut to mark the other side as down.
const KNOWN: u64 = 20;
/// Time limit in seconds for a healed cluster to be whole. The aim is 3 s; small machines need
/// more.
const WHOLE: u64 = 15;
/// Longer than any test: the tests end all cuts themselves.
const LONG: &str = "10m";

fn names(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|number| format!("node-{number}")).collect()
}

/// Waits until each of these nodes sees exactly the nodes of its own group alive.
fn await_groups(cluster: &Cluster, groups: &[Vec<String>], seconds: u64) {
    for group in groups {
        for node in group {
            wait_for(&format!("{node} to see its side and no other"), seconds, || {
                let seen = cluster.members_seen_by(node)?;
                let alive: Vec<_> = seen.iter().filter(|(_, state)| *state == "alive").collect();
                (alive.len() == group.len() && alive.iter().all(|(name, _)| group.contains(name)))
                    .then_some(())
            });
        }
    }
}

fn cut(cluster: &Cluster, groups: &[Vec<String>]) {
    let groups: Vec<_> = groups.iter().map(|group| group.join(",")).collect();
    let mut arguments = vec!["partition", "--for", LONG];
    arguments.extend(groups.iter().map(String::as_str));
    cluster.chaos(&arguments);
}

/// Ends all disturbances, and waits until all nodes see all.
fn heal(cluster: &Cluster, what: &str) {
    cluster.chaos(&["heal"]);
    let healed = Instant::now();
    let all: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_string()).collect();
    await_groups(cluster, &[all], WHOLE);
    println!("{what}: whole {:.2} s after it was healed", healed.elapsed().as_secs_f32());
}

#[test]
fn a_node_that_was_not_started_for_it_refuses_to_be_disturbed() {
    let cluster = Cluster::up(2);
    for fault in [
        &["partition", "node-1"][..],
        &["loss", "node-2", "--percent", "50"],
        &["disk-full", "node-1"],
    ] {
        let refused = cluster.cortado(&["chaos"]).args(fault).run();
        assert_eq!(refused.code, Some(2), "{fault:?}");
        assert!(refused.stderr.contains("--allow-chaos"), "{}", refused.stderr);
    }
    let unknown = cluster.cortado(&["chaos", "kill", "node-7"]).run();
    assert_eq!(unknown.code, Some(3));
    assert!(unknown.stderr.contains("node-1, node-2"), "{}", unknown.stderr);
    cluster.await_members();
}

#[test]
fn after_any_cut_the_cluster_is_whole_without_a_restart_and_the_answer_is_exact() {
    let cluster = Cluster::up_for_trouble(5);
    let data = Coffee::new(Shape::MIDDLE);
    let processes = || cluster.nodes().iter().map(|node| node.process()).collect::<Vec<_>>();
    let before = processes();
    let cuts: [(&str, &[&[usize]]); 4] = [
        ("halves", &[&[1, 2], &[3, 4, 5]]),
        ("thirds", &[&[1, 2], &[3, 4], &[5]]),
        ("one alone", &[&[4], &[1, 2, 3, 5]]),
        ("every node alone", &[&[1], &[2], &[3], &[4], &[5]]),
    ];
    for (number, (what, groups)) in (1..).zip(cuts) {
        let groups: Vec<_> = groups.iter().map(|group| names(group)).collect();
        let job = job_id(number);
        let run = cluster.run_coffee(data.dir(), &job, what).upload_rate(Shape::SLOW).spawn();
        cluster.await_upload(&job, 20);
        cut(&cluster, &groups);
        await_groups(&cluster, &groups, KNOWN);
        heal(&cluster, what);
        let _ = run.wait().ok();
        data.check(&cluster, &job, what);
    }
    // Disturbances that do not divide the cluster must do no harm either.
    for (number, (what, commands)) in (11..).zip([
        ("one way", &[&["oneway", "node-1", "node-4", "--for", LONG][..]][..]),
        (
            "bridge",
            &[
                &["oneway", "node-1", "node-4", "--for", LONG],
                &["oneway", "node-4", "node-1", "--for", LONG],
            ],
        ),
        ("loss", &[&["loss", "node-2,node-3", "--percent", "20", "--for", LONG]]),
        ("delay", &[&["delay", "node-5", "--ms", "100", "--for", LONG]]),
        ("full disk", &[&["disk-full", "node-2", "--for", LONG]]),
    ]) {
        let job = job_id(number);
        let run = cluster.run_coffee(data.dir(), &job, what).upload_rate(Shape::SLOW).spawn();
        cluster.await_upload(&job, 20);
        commands.iter().for_each(|arguments| cluster.chaos(arguments));
        wait_for(&format!("most of job {job} to be durable"), 60, || {
            cluster.try_status(&job).filter(|status| uploaded_percent(status) >= 60)
        });
        heal(&cluster, what);
        let _ = run.wait().ok();
        data.check(&cluster, &job, what);
    }
    assert!(before == processes(), "a healthy node was restarted");
    let log = cluster.events();
    let restarts: Vec<_> = log.iter().filter(|event| event["event"] == "reviving").collect();
    assert!(restarts.is_empty(), "{restarts:#?}");
}

#[test]
fn a_network_that_comes_and_goes_holds_nothing_up_for_good() {
    let cluster = Cluster::up_for_trouble(3);
    let data = Coffee::new(Shape::MIDDLE);
    let (job, groups) = (job_id(1), [names(&[1]), names(&[2, 3])]);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 10);
    for _ in 0..4 {
        cut(&cluster, &groups);
        await_groups(&cluster, &groups[..1], KNOWN);
        heal(&cluster, "flapping");
    }
    let _ = run.wait().ok();
    data.check(&cluster, &job, "out");
}

#[test]
fn alone_a_node_promises_nothing_and_says_what_it_waits_for() {
    let cluster = Cluster::up_for_trouble(3);
    let data = Coffee::new(Shape::MIDDLE);
    let groups = [names(&[1]), names(&[2, 3])];
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 20);
    cut(&cluster, &groups);
    await_groups(&cluster, &groups, KNOWN);
    // A new job and this one, from the node that is alone: it can't replicate anything.
    let (second, address) = (job_id(2), cluster.address("node-1"));
    let waits = "waiting for replicas: 1 of 2";
    let alone = ["--connect", &address, "--timeout", "6"];
    let new = cluster.run_coffee(data.dir(), &second, "second").args(&alone).run();
    let _ = new.exits(5, &["2 nodes are away"]);
    let alone =
        cluster.run_coffee(data.dir(), &job, "alone").args(&["--connect", &address]).spawn();
    wait_for("the client to say what it waits for", 30, || {
        alone.stderr().contains(waits).then_some(())
    });
    heal(&cluster, "one alone");
    for (client, out) in [(run, "out"), (alone, "alone")] {
        let _ = client.wait().ok();
        data.check(&cluster, &job, out);
    }
    let _ = cluster.run_coffee(data.dir(), &second, "second").run().ok();
    data.check(&cluster, &second, "second");
}

#[test]
fn a_client_turns_to_the_larger_side_of_a_cut() {
    let cluster = Cluster::up_for_trouble(5);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 20);
    // Clients first ask the first node in the profile, which is alone and can't replicate anything.
    let groups = [names(&[1]), names(&[2, 3, 4, 5])];
    cut(&cluster, &groups);
    await_groups(&cluster, &groups, KNOWN);
    let seen = cluster.json(&["nodes"]);
    assert!(groups[1].iter().any(|node| seen["answered_by"] == node.as_str()), "{seen}");
    let _ = run.wait().ok();
    data.check_reports(&cluster.path("out"));
    heal(&cluster, "the node that was asked alone");
}

#[test]
fn clients_on_both_sides_of_a_cut_never_get_two_answers() {
    let cluster = Cluster::up_for_trouble(5);
    let data = Coffee::new(Shape::MIDDLE);
    let job = job_id(1);
    let first = cluster.run_coffee(data.dir(), &job, "first").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 30);
    let groups = [names(&[1, 2]), names(&[3, 4, 5])];
    cut(&cluster, &groups);
    await_groups(&cluster, &groups, KNOWN);
    // Each side has a client that resumes the same job and knows only nodes of its own side.
    let folder = path_text(data.dir());
    let sides: BTreeMap<_, _> = [("small", "node-1"), ("large", "node-4")].into();
    let clients: Vec<_> = sides
        .iter()
        .map(|(out, node)| {
            let (to, address) = (path_text(&cluster.path(out)), cluster.address(node));
            let resume = ["resume", &job, "--data", &folder, "--out", &to, "--connect", &address];
            (*out, cluster.cortado(&resume).args(&["--timeout", "5"]).spawn())
        })
        .collect();
    for (out, client) in clients {
        let ended = client.wait();
        println!("{out} side: {:?} {}", ended.code, ended.stderr.lines().last().unwrap_or(""));
        match ended.code {
            Some(0) => data.check_reports(&cluster.path(out)),
            // The job waits for entries of the other side, and the client says so.
            _ => assert!(
                ["waiting for replicas", "missing", "waits for"]
                    .iter()
                    .any(|reason| ended.stderr.contains(reason)),
                "{}",
                ended.stderr
            ),
        }
    }
    heal(&cluster, "clients on both sides");
    let _ = first.wait().ok();
    data.check(&cluster, &job, "first");
    for node in names(&[1, 2, 3, 4, 5]) {
        let (to, address) = (path_text(&cluster.path(&node)), cluster.address(&node));
        cluster.cortado(&["result", &job, "--out", &to, "--connect", &address]).run().ok();
        data.check_reports(&cluster.path(&node));
    }
}
