//! Dead nodes that are forgotten for good.

use tests::cluster::{Cluster, Coffee, Shape, job_id, wait_for};

const OTHERS: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
const DEAD: &str = "node-5";

/// Waits until a node lists and counts four members.
fn await_four(cluster: &Cluster, node: &str) {
    let address = cluster.address(node);
    wait_for(&format!("{node} to have forgotten {DEAD}"), 20, || {
        let view = cluster.cortado(&["nodes", "--json", "--connect", &address]).run();
        let view = (view.code == Some(0)).then(|| view.json())?;
        let members = view["members"].as_array()?;
        let named = members.iter().any(|member| member["id"] == DEAD);
        let whole = members.len() == 4 && view["expected_nodes"] == 4 && view["formed"] == true;
        (!named && whole).then_some(())
    });
}

/// Waits until every running node has marked these nodes as down; they may be ill before that.
fn await_down(cluster: &Cluster, dead: &[&str]) {
    for node in OTHERS.into_iter().filter(|node| cluster.is_running(node)) {
        wait_for(&format!("{node} to know who is down"), 20, || {
            let seen = cluster.members_seen_by(node)?;
            let down = |name: &&str| seen.get(*name).is_some_and(|state| state == "down");
            dead.iter().all(down).then_some(())
        });
    }
}

#[test]
fn a_forgotten_node_stays_forgotten_and_may_join_again_with_a_new_certificate() {
    let cluster = Cluster::up(5);
    let data = Coffee::new(Shape::TINY);
    cluster.run_coffee(data.dir(), &job_id(1), "before").run().ok();
    cluster.await_moves();
    let forget = |node: &str| cluster.cortado(&["forget", node]).run();
    let _ = forget(DEAD).exits(2, &["lives", "cortado drain node-5"]);
    let _ = forget("node-9").exits(3, &["node-3, node-4 and node-5"]);
    cluster.kill(DEAD);
    // A node that is away when the others forget a member forgets it later.
    cluster.kill("node-2");
    cluster.kill("node-3");
    await_down(&cluster, &["node-2", "node-3", DEAD]);
    let _ = forget(DEAD).exits(2, &["2 of 5 members answer"]);
    cluster.start("node-3");
    cluster.await_members();
    await_down(&cluster, &[DEAD]);
    let said = forget(DEAD).ok();
    assert!(said.stdout.contains("node-5 is forgotten"), "{}", said.stdout);
    let _ = forget(DEAD).ok();
    cluster.start("node-2");
    for node in OTHERS {
        await_four(&cluster, node);
    }
    // The forgotten node does not return with its old data, and its log says why.
    let _ = cluster.local("start").args(&[DEAD]).within(20).run();
    cluster.await_line(DEAD, "was forgotten");
    // The others do not add it again, not even after each of them was restarted.
    for node in OTHERS {
        cluster.kill(node);
        cluster.start(node);
    }
    for node in OTHERS {
        await_four(&cluster, node);
    }
    cluster.run_coffee(data.dir(), &job_id(2), "after").run().ok();
    data.check_reports(&cluster.path("after"));

    cluster.kill(DEAD);
    cluster.local("wipe-disk").args(&[DEAD]).run().ok();
    cluster.certify_anew(DEAD);
    cluster.start(DEAD);
    cluster.await_members();
    cluster.run_coffee(data.dir(), &job_id(3), "again").run().ok();
    data.check_reports(&cluster.path("again"));
}
