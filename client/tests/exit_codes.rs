//! Exit codes and messages of the real program for mistakes that it finds before it sends anything.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;
use std::process::{Command, Output};

use cortado_transport::{Authority, Profile, Role};

fn cortado(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cortado"))
        .args(arguments)
        .env_remove("CORTADO_CLUSTER")
        .env_remove("CORTADO_CONNECT")
        .env_remove("CORTADO_TIMEOUT")
        .output()
        .unwrap()
}

/// Expects an exit code, and all these texts on standard error.
fn expect(arguments: &[&str], code: i32, texts: &[&str]) -> Output {
    let output = cortado(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    for text in texts {
        assert!(stderr.contains(text), "{arguments:?}: no '{text}' in: {stderr}");
    }
    output
}

/// A small dataset, and the profile of a cluster that does not run.
struct Setting {
    folder: tempfile::TempDir,
    /// Held so that the port stays silent and no other process takes it.
    _socket: std::net::UdpSocket,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let dir = folder.path().join("profile");
        std::fs::create_dir(&dir).unwrap();
        let profile = Profile::new(&dir, "nobody", vec![address]);
        profile.save().unwrap();
        let peers = Authority::generate("nobody", Role::Peer).unwrap();
        let clients = Authority::generate("nobody", Role::Client).unwrap();
        std::fs::write(dir.join("ca.pem"), peers.certificate_pem()).unwrap();
        let issued = clients.issue_client("test").unwrap();
        issued.save(&dir.join("client.pem"), &dir.join("client.key")).unwrap();
        let data = folder.path().join("data");
        expect(
            &[
                "gen",
                "coffee",
                "--out",
                data.to_str().unwrap(),
                "--months",
                "202401",
                "--transactions-per-month",
                "50",
                "--users",
                "20",
            ],
            0,
            &[],
        );
        Self { folder, _socket: socket }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Runs a plan on the dataset.
    fn run(&self, plan: &str, code: i32, texts: &[&str]) -> Output {
        let (profile, data) = (self.path("profile"), self.path("data"));
        let arguments = ["--cluster", &profile, "--timeout", "1", "run", plan, "--data", &data];
        expect(&arguments, code, texts)
    }
}

#[test]
fn usage_errors_are_2() {
    expect(&["brew"], 2, &["brew"]);
    expect(&["run", "coffee"], 2, &["--data"]);
    expect(&["status", "not-an-id"], 2, &["expected a UUID"]);
    expect(&["gen", "coffee", "--out", "x", "--months", "2024"], 2, &["expected YYYYMM"]);
    expect(&["nodes"], 2, &["--cluster", "CORTADO_CLUSTER"]);
    expect(&["--cluster", "/nonexistent", "nodes"], 2, &["/nonexistent"]);
}

#[test]
fn help_and_version_are_0_and_go_to_standard_output() {
    for arguments in [["--help"], ["--version"]] {
        let output = cortado(&arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
    let version = String::from_utf8(cortado(&["--version"]).stdout).unwrap();
    assert!(version.contains("protocol"), "{version}");
    let script = String::from_utf8(cortado(&["completions", "bash"]).stdout).unwrap();
    assert!(script.contains("wipe-disk"));
}

#[test]
fn a_bad_dataset_is_named_before_anything_is_sent() {
    let setting = Setting::new();
    let header = "store_id,street,postal_code,city,state,latitude,longitude\n1,a,b,c,d,1,2\n";
    setting.write("data/stores/stores.csv", header);
    let output = setting.run("coffee", 2, &["stores.csv", "store_name"]);
    assert!(output.stdout.is_empty(), "no job id without a job");
    std::fs::remove_dir_all(Path::new(&setting.path("data/stores"))).unwrap();
    setting.run("coffee", 2, &["table stores", "stores/*.csv"]);
}

#[test]
fn a_bad_plan_is_named_with_its_line() {
    let setting = Setting::new();
    setting.write("plan.toml", "name = \"x\"\n\n[tables.a]\nfiels = \"a/*.csv\"\n");
    let plan = setting.path("plan.toml");
    setting.run(&plan, 2, &[&format!("{plan}:4"), "fiels"]);
    setting.run("espresso", 2, &["espresso", "coffee"]);
}

#[test]
fn a_cluster_that_does_not_answer_is_5_and_the_way_on_is_told() {
    let setting = Setting::new();
    let output =
        setting.run("coffee", 5, &["can't be reached", "go on with: cortado run coffee --job"]);
    let id = String::from_utf8(output.stdout).unwrap();
    assert_eq!(id.trim().len(), 36, "{id}");
    let profile = setting.path("profile");
    expect(&["--cluster", &profile, "--timeout", "1", "nodes"], 5, &["safe to try again"]);
}

#[test]
fn local_commands_need_a_local_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    expect(&["local", "down", "--dir", dir], 2, &["not a local cluster"]);
    expect(&["local", "kill", "node-1", "--dir", dir], 2, &["not a local cluster"]);
    expect(&["local", "up", "--dir", dir, "--nodes", "0"], 2, &["--nodes 0"]);
    expect(&["local", "up", "--dir", dir, "--min-copies", "4"], 2, &["--min-copies 4"]);
    std::fs::write(folder.path().join("thesis.txt"), "x").unwrap();
    expect(&["local", "up", "--dir", dir], 2, &["thesis.txt"]);
    assert!(folder.path().join("thesis.txt").exists());
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cortado"))
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
