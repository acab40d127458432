//! Dead nodes that will not come back.

use std::path::Path;

use cortado_transport::{Authority, Role};
use tests::cluster::{Cluster, Coffee, Shape, job_id, wait_for};

const OTHERS: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
const DEAD: &str = "node-5";

/// Waits until a node's list and counts are those of four members.
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
    // One that is away when the others forget hears of it later.
    cluster.kill("node-2");
    cluster.kill("node-3");
    cluster.await_members();
    let _ = forget(DEAD).exits(2, &["2 of 5 members answer"]);
    cluster.start("node-3");
    cluster.await_members();
    let said = forget(DEAD).ok();
    assert!(said.stdout.contains("node-5 is forgotten"), "{}", said.stdout);
    let _ = forget(DEAD).ok();
    cluster.start("node-2");
    for node in OTHERS {
        await_four(&cluster, node);
    }
    // It does not come back with what it has, and knows why.
    let _ = cluster.local("start").args(&[DEAD]).within(20).run();
    cluster.await_line(DEAD, "was forgotten");
    // The others do not learn of it again from anywhere, not even after a restart of each.
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
    certify_anew(&cluster, DEAD);
    cluster.start(DEAD);
    cluster.await_members();
    cluster.run_coffee(data.dir(), &job_id(3), "again").run().ok();
    data.check_reports(&cluster.path("again"));
}

/// Gives a node a new certificate of the cluster's own authority.
fn certify_anew(cluster: &Cluster, name: &str) {
    let load = |folder: &Path| Authority::load(&folder.join("peer.pem"), &folder.join("peer.key"));
    let authority = load(&cluster.dir().join("authority")).expect("the authority is there");
    assert_eq!(authority.role(), Role::Peer);
    let issued =
        authority.issue_node(name.parse().expect("a name"), &[], &[]).expect("a certificate");
    let folder = cluster.dir().join(name);
    issued.save(&folder.join("node.pem"), &folder.join("node.key")).expect("the folder is there");
}
