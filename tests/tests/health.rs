//! `cortado-node health`: a node's health, independent of its peers.

use std::process::{Command, Output};

use tests::cluster::{Cluster, program};

fn ask(cluster: &Cluster, node: &str, more: &[&str]) -> (Option<i32>, String) {
    let config = cluster.dir().join(node).join("node.toml");
    let daemon = program().with_file_name("cortado-node");
    let mut command = Command::new(daemon);
    command.args(["health", "--config"]).arg(config).args(more);
    let Output { status, stdout, .. } = command.output().expect("the daemon's program runs");
    (status.code(), String::from_utf8_lossy(&stdout).trim_end().to_owned())
}

#[test]
fn a_node_is_well_without_its_peers_and_ill_when_it_stands_still() {
    let cluster = Cluster::up(3);
    let well = (Some(0), "ok".to_owned());
    assert_eq!(ask(&cluster, "node-1", &["--ready"]), well);
    cluster.kill("node-2");
    cluster.kill("node-3");
    assert_eq!(ask(&cluster, "node-1", &["--ready"]), well, "peers play no part");
    let (code, why) = ask(&cluster, "node-2", &[]);
    assert_eq!(code, Some(1));
    assert!(why.contains("no node runs"), "{why}");
    cluster.pause("node-1");
    let (code, why) = ask(&cluster, "node-1", &[]);
    assert_eq!(code, Some(1));
    assert!(why.contains("no answer within"), "{why}");
    cluster.resume("node-1");
    assert_eq!(ask(&cluster, "node-1", &[]), well);
}
