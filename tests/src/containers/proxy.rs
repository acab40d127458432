//! A proxy in front of the engine that a test can close or stall: for the nodes the engine is then
//! gone or hangs, but not for the test.

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
/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 1 << 14;

/// A socket in a folder of its own. The nodes mount the folder, because a recreated socket would be
/// another file for those that have mounted the old one.
#[derive(Debug)]
pub(super) struct EngineProxy {
    runtime: Runtime,
    folder: PathBuf,
    engine: PathBuf,
    serving: Option<JoinHandle<()>>,
    /// Whether bytes are copied.
    flowing: watch::Sender<bool>,
}

impl EngineProxy {
    /// Makes the folder; the proxy is open.
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

    /// Opens the proxy: the engine can be reached.
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

    /// Stalls the proxy: connections are accepted and stay open, but no byte gets through.
    pub(super) fn stall(&self) {
        self.flowing.send_replace(false);
    }

    /// Continues after a stall.
    pub(super) fn go_on(&self) {
        self.flowing.send_replace(true);
    }

    /// Closes the proxy: all connections end, and the socket is removed.
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

/// Copies bytes until they end, while the proxy is not stalled.
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
