//! A way to the engine that a test can close or stall: for the nodes the engine is gone or hangs then,
//! for the test it does not.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The socket's name in its folder.
pub(super) const SOCKET: &str = "engine.sock";
/// Bytes that are carried at once.
const CHUNK_BYTES: usize = 1 << 14;

/// A socket in a folder of its own. Nodes get the folder: a file that is made anew is another file to
/// those who have mounted the old one.
#[derive(Debug)]
pub(super) struct EngineProxy {
    runtime: Runtime,
    folder: PathBuf,
    engine: PathBuf,
    serving: Option<JoinHandle<()>>,
    /// Whether bytes are carried.
    flowing: watch::Sender<bool>,
}

impl EngineProxy {
    /// Makes the folder; the way to `engine` is open.
    pub(super) fn open_in(folder: &Path, engine: &Path) -> Self {
        let runtime = Runtime::new().expect("a runtime can be made");
        std::fs::create_dir(folder).expect("a folder can be made");
        let (folder, engine) = (folder.to_owned(), engine.to_owned());
        let flowing = watch::Sender::new(true);
        let mut proxy = Self { runtime, folder, engine, serving: None, flowing };
        proxy.open();
        proxy
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The engine is there.
    pub(super) fn open(&mut self) {
        let path = self.folder.join(SOCKET);
        let listener = {
            let _within = self.runtime.enter();
            UnixListener::bind(&path).expect("the folder is ours")
        };
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("it is ours");
        let serving = serve(listener, self.engine.clone(), self.flowing.subscribe());
        self.serving = Some(self.runtime.spawn(serving));
    }

    /// The engine hangs: it can be connected to, connections stay open, but no byte comes through.
    pub(super) fn stall(&self) {
        self.flowing.send_replace(false);
    }

    /// It goes on where it was.
    pub(super) fn go_on(&self) {
        self.flowing.send_replace(true);
    }

    /// The engine is gone: its connections end, and there is no socket.
    pub(super) fn close(&mut self) {
        std::fs::remove_file(self.folder.join(SOCKET)).expect("it was open");
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = self.runtime.block_on(serving);
        }
    }
}

async fn serve(listener: UnixListener, engine: PathBuf, flowing: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (engine, flowing) = (engine.clone(), flowing.clone());
        connections.spawn(async move {
            let (from_near, to_near) = near.into_split();
            let (from_far, to_far) = UnixStream::connect(engine).await?.into_split();
            tokio::try_join!(
                carry(from_near, to_far, flowing.clone()),
                carry(from_far, to_near, flowing)
            )
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries bytes until they end, as long as they flow.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut flowing: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        flowing.wait_for(|flowing| *flowing).await.map_err(io::Error::other)?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}
