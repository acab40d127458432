//! Programs without the right certificate are refused, and both sides say why.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;

use cortado_transport::{Authority, Role};
use tests::cluster::{Cluster, Coffee, Cortado, Finished, Shape, path_text, wait_for};

/// A copy of the cluster's profile, which the test changes.
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

    // No certificate.
    let profile = profile_copy(&cluster, "missing");
    std::fs::remove_file(profile.join("client.pem")).unwrap();
    let _ = nodes(&profile).exits(2, &["client.pem"]);

    // A client of another cluster: its own program notices first.
    let profile = profile_copy(&cluster, "foreign");
    let foreign = Authority::generate("other", Role::Client).unwrap();
    let issued = foreign.issue_client("guest").unwrap();
    issued.save(&profile.join("client.pem"), &profile.join("client.key")).unwrap();
    let _ = nodes(&profile).exits(2, &["certificate", "other"]);

    // A client with a forged cluster name: the node refuses it, and both sides say so.
    let profile = profile_copy(&cluster, "forged");
    let name = cluster.json(&["nodes"])["cluster"].as_str().unwrap().to_owned();
    let forged = Authority::generate(&name, Role::Client).unwrap();
    let issued = forged.issue_client("intruder").unwrap();
    issued.save(&profile.join("client.pem"), &profile.join("client.key")).unwrap();
    let _ = nodes(&profile).exits(5, &["certificate"]);
    let log = || std::fs::read_to_string(cluster.dir().join("node-1/node.log")).unwrap();
    wait_for("the node to say whom it refused", 10, || log().contains("certificate").then_some(()));

    // A node's certificate is no client certificate.
    let profile = profile_copy(&cluster, "node");
    let node = cluster.dir().join("node-1");
    std::fs::copy(node.join("node.pem"), profile.join("client.pem")).unwrap();
    std::fs::copy(node.join("node.key"), profile.join("client.key")).unwrap();
    let refused = nodes(&profile);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);

    // The profile has another cluster's authority: the client refuses the node.
    let profile = profile_copy(&cluster, "other-cluster");
    let other = Authority::generate("other", Role::Peer).unwrap();
    std::fs::write(profile.join("ca.pem"), other.certificate_pem()).unwrap();
    let refused = nodes(&profile).exits(5, &["certificate"]);
    assert!(refused.stdout.is_empty());

    // Other clients are still served.
    nodes(&profile_copy(&cluster, "still-right")).ok();
}

/// Restarts one node after the other, as an operator does to make them read their files.
fn restart_all(cluster: &Cluster) {
    for node in cluster.nodes() {
        let name = node.name().to_string();
        cluster.local("stop").args(&[&name]).run().ok();
        cluster.start(&name);
        cluster.await_members();
        cluster.await_moves();
    }
}

#[test]
fn certificates_and_their_authorities_are_replaced_during_uploads() {
    let cluster = Cluster::up(3);
    let name = cluster.json(&["nodes"])["cluster"].as_str().unwrap().to_owned();
    let folders = cluster.nodes();
    let new = |role| Authority::generate(&name, role).unwrap();
    let (peers, clients) = (new(Role::Peer), new(Role::Client));
    // Every file with trusted authorities, and the authority to add.
    let mut trusted = vec![(cluster.dir().join("ca.pem"), peers.certificate_pem())];
    for node in &folders {
        trusted.push((node.path().join("peer-ca.pem"), peers.certificate_pem()));
        trusted.push((node.path().join("client-ca.pem"), clients.certificate_pem()));
    }
    let data = Coffee::new(Shape::MIDDLE);
    let replace = || {
        // First all nodes and clients trust both authorities.
        for (file, new) in &trusted {
            let old = std::fs::read_to_string(file).unwrap();
            std::fs::write(file, format!("{old}{new}")).unwrap();
        }
        restart_all(&cluster);
        // Then all use certificates of the new authorities.
        for node in &folders {
            let issued = peers.issue_node(node.name(), &[], &[]).unwrap();
            issued.save(&node.path().join("node.pem"), &node.path().join("node.key")).unwrap();
        }
        let issued = clients.issue_client("renewed").unwrap();
        let (cert, key) = (cluster.dir().join("client.pem"), cluster.dir().join("client.key"));
        issued.save(&cert, &key).unwrap();
        restart_all(&cluster);
        // In the end the old authorities are removed.
        for (file, new) in &trusted {
            std::fs::write(file, new).unwrap();
        }
        restart_all(&cluster);
    };
    let before = profile_copy(&cluster, "before");
    data.uploads_during(&cluster, Shape::SLOW, replace);
    let _ = nodes(&before).exits(5, &["certificate"]);
}
