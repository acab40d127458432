//! The folder of a local cluster: its content, its lock, and what a wipe may delete.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

use super::NodeFolder;
use crate::authorities::Authorities;
use crate::{Error, Timing};

/// Marks the folder as a local cluster.
const MARKER: &str = "cluster.toml";
/// Locked while a command changes the folder.
const LOCK: &str = ".lock";
/// The profile's files.
const PROFILE: [&str; 4] = ["profile.toml", "ca.pem", "client.pem", "client.key"];

/// The options of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The cluster's name.
    pub(super) cluster: String,
    /// Copies aimed at, if there are enough nodes.
    pub(super) replicas: u8,
    /// Copies needed before an acknowledgement, if there are enough nodes.
    pub(super) min_copies: u8,
    /// Nodes at the start.
    pub(super) expected_nodes: u16,
    /// Timing of the failure detector.
    #[serde(default)]
    pub(super) timing: Timing,
    /// The means to start dead nodes: `process` or `none`.
    #[serde(default = "nobody")]
    pub(super) reviver: String,
    /// Whether clients may disturb the nodes.
    #[serde(default)]
    pub(super) allow_chaos: bool,
}

/// Clusters of earlier versions have no reviver.
fn nobody() -> String {
    "none".into()
}

/// A local cluster's folder.
pub struct Folder {
    path: PathBuf,
    pub(super) wanted: Wanted,
    /// Commands that make, grow or wipe a cluster wait for this lock.
    lock: Option<File>,
}

impl Folder {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// [`Error::BadInput`] if there is no cluster at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = absolute(path)?;
        let marker = path.join(MARKER);
        let text = fs::read_to_string(&marker).map_err(|_| {
            Error::BadInput(format!(
                "{} is not a local cluster (no {MARKER}); make one with `cortado local up --dir {}`",
                path.display(),
                path.display()
            ))
        })?;
        let wanted = toml::from_str(&text)
            .map_err(|error| Error::BadInput(format!("{}: {error}", marker.display())))?;
        Ok(Self { path, wanted, lock: None })
    }

    /// Opens an existing folder for a command that changes its content.
    pub(super) fn open_locked(path: &Path) -> Result<Self, Error> {
        let mut folder = Self::open(path)?;
        folder.lock = Some(lock(&folder.path)?);
        Ok(folder)
    }

    /// Whether there is a cluster at `path`.
    #[must_use]
    pub fn exists(path: &Path) -> bool {
        path.join(MARKER).is_file()
    }

    /// Makes a cluster in a folder that is empty or does not exist.
    pub(super) fn create(path: &Path, wanted: Wanted) -> Result<Self, Error> {
        let path = absolute(path)?;
        fs::create_dir_all(&path).map_err(|source| Error::io("create", &path, source))?;
        let lock = lock(&path)?;
        let entries = fs::read_dir(&path).map_err(|source| Error::io("read", &path, source))?;
        for entry in entries {
            let name = entry.map_err(|source| Error::io("read", &path, source))?.file_name();
            if name != LOCK {
                return Err(Error::BadInput(format!(
                    "{} is neither empty nor a local cluster (it holds {}); choose another --dir",
                    path.display(),
                    name.to_string_lossy()
                )));
            }
        }
        let folder = Self { path, wanted, lock: Some(lock) };
        folder.save()?;
        Ok(folder)
    }

    /// Writes the marker.
    pub(super) fn save(&self) -> Result<(), Error> {
        let marker = self.path.join(MARKER);
        let text = toml::to_string(&self.wanted).expect("plain values serialize to TOML");
        let text = format!("# A local Cortado cluster; see `cortado local --help`.\n{text}");
        fs::write(&marker, text).map_err(|source| Error::io("write", &marker, source))
    }

    /// The absolute path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the authorities.
    pub(super) fn authority(&self) -> PathBuf {
        self.path.join(Authorities::FOLDER)
    }

    /// Its nodes in the order of their numbers.
    ///
    /// # Errors
    /// If the folder or a node's configuration can't be read.
    pub fn nodes(&self) -> Result<Vec<NodeFolder>, Error> {
        let entries =
            fs::read_dir(&self.path).map_err(|source| Error::io("read", &self.path, source))?;
        let mut numbers = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("read", &self.path, source))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix("node-")?.parse::<u16>().ok());
            numbers.extend(number.filter(|_| NodeFolder::is_at(&entry.path())));
        }
        numbers.into_iter().map(|number| NodeFolder::open(&self.path, number)).collect()
    }

    /// One of its nodes.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such node; the message lists the nodes.
    pub fn node(&self, name: NodeId) -> Result<NodeFolder, Error> {
        let mut nodes = self.nodes()?;
        let names: Vec<String> = nodes.iter().map(|node| node.name().to_string()).collect();
        match nodes.iter().position(|node| node.name() == name) {
            Some(at) => Ok(nodes.swap_remove(at)),
            None => Err(Error::NotFound(format!(
                "there is no node {name} in {}; there are {}",
                self.path.display(),
                names.join(", ")
            ))),
        }
    }

    /// Deletes everything that the cluster's commands have made, and the folder if it is empty
    /// then. The nodes must not run.
    pub(super) fn wipe(mut self) -> Result<(), Error> {
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
        }
        for node in self.nodes()? {
            remove(fs::remove_dir_all(node.path()), node.path())?;
        }
        let authority = self.authority();
        remove(fs::remove_dir_all(&authority), &authority)?;
        for name in PROFILE.iter().chain(&[MARKER, LOCK]) {
            let file = self.path.join(name);
            remove(fs::remove_file(&file), &file)?;
        }
        // The folder stays if it has other content.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

fn remove(result: std::io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("delete", path, error))
        }
        _ => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::io("resolve", path, source))
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = path.join(LOCK);
    let lock = File::create(&file).map_err(|source| Error::io("create", &file, source))?;
    lock.lock().map_err(|source| Error::io("lock", &file, source))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            cluster: "local".into(),
            replicas: 3,
            min_copies: 2,
            expected_nodes: 5,
            timing: Timing::Auto,
            reviver: "process".into(),
            allow_chaos: false,
        }
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("thesis.txt"), "years of work").unwrap();
        let error = Folder::create(other.path(), wanted()).err().unwrap();
        assert!(error.to_string().contains("thesis.txt"), "{error}");
        let error = Folder::open(other.path()).err().unwrap();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn wiping_leaves_what_others_put_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cluster");
        let folder = Folder::create(&path, wanted()).unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        folder.wipe().unwrap();
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
        fs::remove_file(path.join("notes.txt")).unwrap();
        Folder::create(&path, wanted()).unwrap().wipe().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_was_asked_for_is_read_back_and_unknown_keys_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cluster");
        drop(Folder::create(&path, wanted()).unwrap());
        assert_eq!(Folder::open(&path).unwrap().wanted, wanted());
        fs::write(path.join(MARKER), "cluster = 'x'\ncolour = 'blue'").unwrap();
        assert!(Folder::open(&path).err().unwrap().to_string().contains("colour"));
    }
}
