//! Owner and group of the files, where nodes do not run as the user of the clients: in containers.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use cortado_protocol::NodeId;

use crate::Error;
use crate::authorities::NodeFiles;

/// Gives all files of a folder to its owner, and lets the nodes' group read the nodes' keys.
pub(super) fn share(dir: &Path, nodes: &[NodeId], node_group: u32) -> Result<(), Error> {
    let failed = |source| Error::io("share the files in", dir, source);
    let keys = nodes.iter().map(|node| NodeFiles::default().key_in(&dir.join(node.as_str())));
    let keys: Vec<_> = keys.collect();
    // Before the files change their owner: only the owner may change the mode.
    for key in &keys {
        fs::set_permissions(key, Permissions::from_mode(0o640)).map_err(failed)?;
    }
    let owner = fs::metadata(dir).map_err(failed)?;
    give(dir, owner.uid(), owner.gid()).map_err(failed)?;
    for key in &keys {
        lchown(key, Some(owner.uid()), Some(node_group)).map_err(failed)?;
    }
    Ok(())
}

fn give(dir: &Path, user: u32, group: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), user, group)?;
        }
        lchown(entry.path(), Some(user), Some(group))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_the_nodes_may_read_their_keys_and_nothing_more() {
        let root = tempfile::tempdir().unwrap();
        let node: NodeId = "node-1".parse().unwrap();
        let folder = root.path().join("node-1");
        fs::create_dir(&folder).unwrap();
        for name in ["node.key", "node.pem"] {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)).unwrap();
        }
        // Only root may choose a group that it is not in.
        let group = fs::metadata(root.path()).unwrap().gid();
        share(root.path(), &[node], group).unwrap();
        let mode = |name| fs::metadata(folder.join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("node.key"), mode("node.pem")), (0o640, 0o600));
        assert_eq!(fs::metadata(folder.join("node.key")).unwrap().gid(), group);
    }
}
