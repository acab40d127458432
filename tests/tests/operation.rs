//! Events in the operation of nodes: signals, misplaced folders, a log that no program reads.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use cortado_transport::{Authority, Role};
use rustix::process::{Pid, Signal, kill_process};
use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text, wait_for};

const AGAIN: &str = "read certificates, authorities and what to log again";

fn hang_up(cluster: &Cluster, name: &str) {
    let process = cluster.process(name).expect("the node runs");
    kill_process(Pid::from_raw(process.pid).expect("a process"), Signal::HUP).expect("it runs");
}

#[test]
fn sighup_reads_certificates_and_the_log_filter_again_and_loses_no_connection() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let (job, names) = (job_id(1), ["node-1", "node-2", "node-3"]);
    let before = cluster.processes();
    let links = |name: &str| cluster.log(name).matches("link down").count();
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 20);
    let lost = names.map(links);
    for name in names {
        cluster.certify_anew(name);
        let file = cluster.dir().join(name).join("node.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("log = \"info,cortado_core=debug\"\n{text}")).unwrap();
        hang_up(&cluster, name);
        cluster.await_line(name, AGAIN);
    }
    let _ = cluster.cortado(&["status", &job_id(9)]).run().exits(3, &[]);
    wait_for("one of them to log more than before", 10, || {
        names.iter().any(|name| cluster.log(name).contains("nobody knows the job")).then_some(())
    });
    let _ = run.wait().ok();
    data.check(&cluster, &job, "out");
    assert_eq!((cluster.processes(), names.map(links)), (before, lost));

    // Clients of another authority are refused from now on; they are accepted again after the next
    // SIGHUP.
    let authority = Authority::generate("local", Role::Client).unwrap();
    let files = names.map(|name| cluster.dir().join(name).join("client-ca.pem"));
    let own = fs::read(&files[0]).unwrap();
    let times = |name: &str| cluster.log(name).matches(AGAIN).count();
    let read_again = |text: &[u8]| {
        let before = names.map(times);
        for (file, name) in files.iter().zip(names) {
            fs::write(file, text).unwrap();
            hang_up(&cluster, name);
        }
        wait_for("all to have read it", 10, || (names.map(times) > before).then_some(()));
    };
    let mine = Authority::load(
        &cluster.dir().join("authority/client.pem"),
        &cluster.dir().join("authority/client.key"),
    );
    let other = Authority::generate(mine.unwrap().cluster(), Role::Client).unwrap();
    read_again(other.certificate_pem().as_bytes());
    let stranger = cluster.cortado(&["nodes"]).spawn();
    wait_for("the client to be refused", 20, || {
        let refused = |name: &str| cluster.log(name).contains("kind=unknown_authority");
        names.iter().any(|name| refused(name)).then_some(())
    });
    assert_eq!(stranger.kill().stdout, "");
    read_again(&own);
    cluster.cortado(&["nodes"]).run().ok();
    // A certificate that can't be used changes nothing.
    fs::write(&files[0], authority.certificate_pem()).unwrap();
    fs::write(cluster.dir().join("node-1/node.pem"), "nothing").unwrap();
    hang_up(&cluster, "node-1");
    cluster.await_line("node-1", "certificates stay as they were");
    cluster.cortado(&["nodes", "--connect", &cluster.address("node-1")]).run().ok();
}

#[test]
fn a_data_folder_of_another_node_is_refused_by_name() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    cluster.run_coffee(data.dir(), &job_id(1), "out").run().ok();
    let folder = |name: &str| cluster.dir().join(name).join("data");
    let aside = cluster.path("aside");
    cluster.kill("node-3");
    fs::rename(folder("node-3"), &aside).unwrap();
    copy(&folder("node-2"), &folder("node-3"));
    let refused = cluster.local("start").args(&["node-3"]).run();
    assert_ne!(refused.code, Some(0));
    cluster.await_line("node-3", "is that of node-2 of cluster");
    fs::remove_dir_all(folder("node-3")).unwrap();
    fs::rename(&aside, folder("node-3")).unwrap();
    cluster.start("node-3");
    cluster.await_members();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().expect("cp runs");
    // Sockets can't be copied, and need not be.
    assert!(to.is_dir(), "{copied}");
}

#[test]
fn a_log_that_can_not_be_written_stops_no_node() {
    let cluster = Cluster::up(3);
    cluster.kill("node-3");
    let config = path_text(&cluster.dir().join("node-3/node.toml"));
    let program = tests::cluster::program().with_file_name("cortado-node");
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    // A full disk, and a reader that does not read very many lines.
    for (stderr, filter) in [(full(), "info"), (Stdio::piped(), "trace")] {
        let mut node = Command::new(&program);
        node.args(["--config", &config]).env("CORTADO_LOG", filter);
        let mut node = node.stderr(stderr).stdout(Stdio::null()).spawn().unwrap();
        wait_for("node-3 to be there", 20, || {
            let seen = cluster.members_seen_by("node-1")?;
            (seen.get("node-3").is_some_and(|state| state == "alive")).then_some(())
        });
        let data = Coffee::new(Shape::TINY);
        let job = job_id(if filter == "info" { 1 } else { 2 });
        cluster.run_coffee(data.dir(), &job, filter).run().ok();
        let pid = Pid::from_raw(node.id() as i32).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let ended = wait_for("its end", 20, || node.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}
