//! Health of this node: its loop runs and its disk takes writes. The check does not depend on
//! peers, so a cut network makes no node ill.
//!
//! The node answers on a socket in its data folder. A client of the socket (`cortado-node health`,
//! a container's health check, a peer that considers a restart) gets one line: `ok`, `starting`, or
//! what is wrong. A paused or hung process does not answer, which counts as ill.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::disk::NodeState;

/// The socket's name in the data folder.
const SOCKET: &str = "health.sock";
/// Time limit for an answer of the loop, and for a write to the disk.
const LIMIT: Duration = Duration::from_secs(1);
/// Time limit for the whole answer. No answer within it counts as ill.
pub const PATIENCE: Duration = Duration::from_millis(2500);
/// Longest answer.
const ANSWER_BYTES: u64 = 4096;
/// Connections served at a time; more wait in the socket's queue.
const ASKERS: usize = 8;

/// The node's loop answers it, which shows that the loop runs.
pub type Ping = oneshot::Sender<()>;

/// A node's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Ok,
    /// It reads its log.
    Starting,
    /// It does not work; the sentence says why.
    Ill(String),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Starting => f.write_str("starting"),
            Self::Ill(why) => f.write_str(why),
        }
    }
}

/// Answers on the socket. Dropping it closes the socket.
pub struct HealthPort {
    doctor: Doctor,
    task: JoinHandle<()>,
}

/// Examines this node: its loop and its disk.
#[derive(Clone)]
pub struct Doctor {
    pings: Arc<OnceLock<mpsc::Sender<Ping>>>,
    state: Arc<Mutex<NodeState>>,
}

impl Doctor {
    /// How the node is.
    pub async fn examine(&self) -> Health {
        let Some(pings) = self.pings.get() else { return Health::Starting };
        match examine(pings, Arc::clone(&self.state)).await {
            Ok(()) => Health::Ok,
            Err(illness) => Health::Ill(illness),
        }
    }
}

impl HealthPort {
    /// Listens in the data folder, which must be locked by this process. Until [`Self::started`] the
    /// answer is `starting`.
    ///
    /// # Errors
    /// If the socket can't be made.
    pub fn open(data: &Path, state: NodeState) -> io::Result<Self> {
        let listener = within(data, |socket| {
            match std::fs::remove_file(socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(socket)
        })?;
        let pings = Arc::new(OnceLock::new());
        // Simultaneous checks write one after the other.
        let state = Arc::new(Mutex::new(state));
        let doctor = Doctor { pings, state };
        let task = tokio::spawn(serve(listener, doctor.clone()));
        Ok(Self { doctor, task })
    }

    /// Examines this node for others, too.
    #[must_use]
    pub fn doctor(&self) -> Doctor {
        self.doctor.clone()
    }

    /// From now on the node's loop has to answer pings.
    pub fn started(&self) -> mpsc::Receiver<Ping> {
        let (pings, pinged) = mpsc::channel(ASKERS);
        // Only the first call has an effect.
        let _ = self.doctor.pings.set(pings);
        pinged
    }
}

impl Drop for HealthPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks the node that uses this data folder. Blocks up to [`PATIENCE`].
#[must_use]
pub fn check(data: &Path) -> Health {
    let mut answer = String::new();
    let asked = within(data, |socket| StdUnixStream::connect(socket)).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.take(ANSWER_BYTES).read_to_string(&mut answer)
    });
    match asked {
        Ok(_) => match answer.trim_end() {
            "ok" => Health::Ok,
            "starting" => Health::Starting,
            "" => Health::Ill("it ended while it was asked".into()),
            other => Health::Ill(other.into()),
        },
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Health::Ill(format!("no answer within {:.1} s", PATIENCE.as_secs_f32()))
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Health::Ill(format!("no node runs on {}", data.display()))
            }
            _ => Health::Ill(format!("{}: {error}", data.join(SOCKET).display())),
        },
    }
}

/// Opens the folder and uses the socket's path below it: a socket's own path is limited to 107
/// bytes.
fn within<T>(data: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = std::fs::File::open(data)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())))
}

async fn serve(listener: UnixListener, doctor: Doctor) {
    let mut askers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if askers.len() < ASKERS => match accepted {
                Ok((stream, _)) => {
                    askers.spawn(answer(stream, doctor.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "health can't be asked");
                    tokio::time::sleep(LIMIT).await;
                }
            },
            Some(_) = askers.join_next() => {}
        }
    }
}

async fn answer(mut stream: UnixStream, doctor: Doctor) {
    let text = doctor.examine().await;
    // The other side may have closed the connection.
    let _ = stream.write_all(format!("{text}\n").as_bytes()).await;
}

async fn examine(pings: &mpsc::Sender<Ping>, state: Arc<Mutex<NodeState>>) -> Result<(), String> {
    let (pong, ponged) = oneshot::channel();
    let turn = async { pings.send(pong).await.is_ok() && ponged.await.is_ok() };
    match tokio::time::timeout(LIMIT, turn).await {
        Ok(true) => {}
        Ok(false) => return Err("the node is stopping".into()),
        Err(_) => return Err("the node's loop is stalled".into()),
    }
    let written = tokio::task::spawn_blocking(move || {
        state.lock().unwrap_or_else(PoisonError::into_inner).probe()
    });
    match tokio::time::timeout(LIMIT, written).await {
        Ok(Ok(result)) => result.map_err(|error| format!("the disk can't be written: {error}")),
        Ok(Err(_)) => Err("the disk can't be written".into()),
        Err(_) => Err("the disk does not answer".into()),
    }
}

#[cfg(test)]
mod tests {
    use cortado_log::{MemStorage, StateFiles};

    use super::*;

    /// A data folder whose path is longer than a socket's path may be.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("d".repeat(120));
        std::fs::create_dir(&data).unwrap();
        (root, data)
    }

    fn open(data: &Path) -> HealthPort {
        let state = NodeState::new(StateFiles::new(Arc::new(MemStorage::new())));
        HealthPort::open(data, state).unwrap()
    }

    async fn ask(data: &Path) -> Health {
        let data = data.to_owned();
        tokio::task::spawn_blocking(move || check(&data)).await.unwrap()
    }

    #[tokio::test]
    async fn a_node_starts_works_stalls_and_ends() {
        let (_root, data) = folder();
        assert!(matches!(ask(&data).await, Health::Ill(why) if why.contains("no node runs")));
        let port = open(&data);
        assert_eq!(ask(&data).await, Health::Starting);

        let mut pings = port.started();
        let turning = tokio::spawn(async move {
            while let Some(ping) = pings.recv().await {
                let _ = ping.send(());
            }
        });
        assert_eq!(ask(&data).await, Health::Ok);
        turning.abort();
        let _ = turning.await;
        assert!(matches!(ask(&data).await, Health::Ill(why) if why.contains("stopping")));
        drop(port);

        // A socket that was left behind is replaced.
        let port = open(&data);
        let _stalled = port.started();
        assert!(matches!(ask(&data).await, Health::Ill(why) if why.contains("stalled")));
    }
}
