//! A way to the engine that a test can close: for the nodes the engine is gone then, for the test it
//! is not.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};

/// The socket's name in its folder.
pub(super) const SOCKET: &str = "engine.sock";

/// A socket in a folder of its own. Nodes get the folder: a file that is made anew is another file to
/// those who have mounted the old one.
#[derive(Debug)]
pub(super) struct EngineProxy {
    runtime: Runtime,
    folder: PathBuf,
    engine: PathBuf,
    serving: Option<JoinHandle<()>>,
}

impl EngineProxy {
    /// Makes the folder; the way to `engine` is open.
    pub(super) fn open_in(folder: &Path, engine: &Path) -> Self {
        let runtime = Runtime::new().expect("a runtime can be made");
        std::fs::create_dir(folder).expect("a folder can be made");
        let (folder, engine) = (folder.to_owned(), engine.to_owned());
        let mut proxy = Self { runtime, folder, engine, serving: None };
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
        self.serving = Some(self.runtime.spawn(serve(listener, self.engine.clone())));
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

async fn serve(listener: UnixListener, engine: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let engine = engine.clone();
        connections.spawn(async move {
            let mut far = UnixStream::connect(engine).await?;
            copy_bidirectional(&mut near, &mut far).await?;
            io::Result::Ok(())
        });
        while connections.try_join_next().is_some() {}
    }
}
