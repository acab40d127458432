//! Nodes on small disks. Each process has its own file system in memory for its data, in a mount
//! namespace that ends with the process, so that nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{Cluster, path_text, program};

/// The script that runs in place of the daemon. The file `disk` beside a node's configuration has
/// the size of its disk; a node without this file uses the machine's disk.
const DAEMON: &str = r#"#!/bin/sh
# Arguments: --config NODE/node.toml
node=$(dirname "$2")
[ -f "$node/disk" ] || exec DAEMON "$@"
exec unshare --map-root-user --mount sh -c '
    node=$(dirname "$2")
    mkdir -p "$node/data"
    mount -t tmpfs -o size="$(cat "$node/disk")" none "$node/data"
    exec DAEMON "$@"' sh "$@"
"#;

impl Cluster {
    /// Starts a cluster whose nodes `node-1`, `node-2`, … have disks of these sizes in KiB. The
    /// data of a node is lost when its process ends. Returns `None` if this machine allows no
    /// mounts; standard error then says that the test is skipped.
    #[must_use]
    pub fn up_on_small_disks(kib: &[u64], settings: &str) -> Option<Self> {
        let mut mount = Command::new("unshare");
        let mount = mount.args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none"]);
        let may_mount = mount.arg("/mnt").stderr(Stdio::null()).status();
        if !may_mount.is_ok_and(|status| status.success()) {
            eprintln!(
                "SKIPPED: this machine allows no mount namespaces, so there are no small disks"
            );
            return None;
        }
        let mut cluster = Self::up(kib.len());
        let daemon = path_text(&program().with_file_name("cortado-node"));
        let wrapper = cluster.path("node-on-a-small-disk");
        fs::write(&wrapper, DAEMON.replace("DAEMON", &format!("'{daemon}'")))
            .and_then(|()| fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)))
            .expect("a script can be written");
        cluster.daemon = Some(wrapper);
        for (node, kib) in cluster.nodes().iter().zip(kib) {
            fs::write(node.path().join("disk"), format!("{kib}k")).expect("it can be written");
        }
        cluster.set(settings);
        Some(cluster)
    }

    /// Gives a running node a larger disk.
    pub fn enlarge_disk(&self, name: &str, kib: u64) {
        let node = self.node(name);
        let process = node.process().expect("the node runs");
        let status = Command::new("nsenter")
            .args(["--user", "--mount", "--target", &process.pid.to_string()])
            .args(["mount", "-o", &format!("remount,size={kib}k")])
            .arg(node.path().join("data"))
            .status();
        assert!(status.is_ok_and(|status| status.success()), "the disk of {name} can grow");
    }
}
