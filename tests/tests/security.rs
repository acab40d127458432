//! Who has no right certificate is refused, and both sides say why.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;

use cortado_transport::{Authority, Role};
use tests::cluster::{Cluster, Cortado, Finished, path_text, wait_for};

/// A copy of the cluster's profile, to be spoiled.
fn profile_copy(cluster: &Cluster, name: &str) -> std::path::PathBuf {
    let copy = cluster.path(name);
    std::fs::create_dir(&copy).unwrap();
    for file in ["profile.toml", "ca.pem", "client.pem", "client.key"] {
        std::fs::copy(cluster.dir().join(file), copy.join(file)).unwrap();
    }
    copy
}

fn nodes(profile: &Path) -> Finished {
    Cortado::new(&["--cluster", &path_text(profile), "--timeout", "3", "nodes"]).run()
}

#[test]
fn wrong_and_missing_certificates_are_refused_with_a_clear_error() {
    let cluster = Cluster::up(1);
    nodes(&profile_copy(&cluster, "right")).ok();

    // None at all.
    let profile = profile_copy(&cluster, "missing");
    std::fs::remove_file(profile.join("client.pem")).unwrap();
    let _ = nodes(&profile).exits(2, &["client.pem"]);

    // A client of another cluster: its own side sees it first.
    let profile = profile_copy(&cluster, "foreign");
    let foreign = Authority::generate("other", Role::Client).unwrap();
    let issued = foreign.issue_client("guest").unwrap();
    issued.save(&profile.join("client.pem"), &profile.join("client.key")).unwrap();
    let _ = nodes(&profile).exits(2, &["certificate", "other"]);

    // One who forged the cluster's name: the node refuses, and both sides say so.
    let profile = profile_copy(&cluster, "forged");
    let name = cluster.json(&["nodes"])["cluster"].as_str().unwrap().to_owned();
    let forged = Authority::generate(&name, Role::Client).unwrap();
    let issued = forged.issue_client("intruder").unwrap();
    issued.save(&profile.join("client.pem"), &profile.join("client.key")).unwrap();
    let _ = nodes(&profile).exits(5, &["certificate"]);
    let log = || std::fs::read_to_string(cluster.dir().join("node-1/node.log")).unwrap();
    wait_for("the node to say whom it refused", 10, || log().contains("certificate").then_some(()));

    // A node's certificate opens no client connection.
    let profile = profile_copy(&cluster, "node");
    let node = cluster.dir().join("node-1");
    std::fs::copy(node.join("node.pem"), profile.join("client.pem")).unwrap();
    std::fs::copy(node.join("node.key"), profile.join("client.key")).unwrap();
    let refused = nodes(&profile);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);

    // A cluster that is not the profile's: the client refuses.
    let profile = profile_copy(&cluster, "other-cluster");
    let other = Authority::generate("other", Role::Peer).unwrap();
    std::fs::write(profile.join("ca.pem"), other.certificate_pem()).unwrap();
    let refused = nodes(&profile).exits(5, &["certificate"]);
    assert!(refused.stdout.is_empty());

    // Nobody was harmed.
    nodes(&profile_copy(&cluster, "still-right")).ok();
}
