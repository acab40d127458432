//! HTTP: the live page, the same reports as `cortado … --json`, outputs of streams as they are
//! published. It reads, and asks this node like a client; it never depends on another node being up.
//!
//! ```text
//! serve (connections) ──▶ guard (who asks, from where) ──▶ routes ──┬─▶ cache ──▶ ask this node
//!                                                                   └─▶ feeds: one reader of an
//!                                                                       output for all of its readers
//! ```

mod answer;
mod cache;
mod cluster;
mod data;
mod feed;
mod feeds;
mod figures;
mod guard;
mod jobs;
mod metrics;
mod openapi;
mod page;
mod reader;
mod rollups;
mod routes;
mod serve;
mod site;
mod streams;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};

use site::Site;
pub use site::{HttpConfig, Known, Started};

/// Answers over HTTP, on a thread of its own: nobody who asks waits behind batches, and no batch behind them.
/// Dropping it ends that.
pub struct Http {
    site: Arc<Site>,
    addr: SocketAddr,
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Listens. Until [`Http::started`], it answers only how the node is.
    ///
    /// # Errors
    /// If the port can't be used, or the system refuses a thread.
    pub fn open(config: HttpConfig, known: Known) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.bind)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let places = Arc::new(Semaphore::new(serve::CONNECTIONS));
        let site = Arc::new(Site::new(config, known, Arc::clone(&places)));
        let (stopping, stop) = watch::channel(false);
        let router = routes::router(Arc::clone(&site));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve::run(listener, router, places, stop).await,
                    Err(error) => tracing::error!(%error, "nothing is answered over HTTP"),
                }
            });
            // A look at a disk that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { site, addr, stopping, thread: Some(thread) })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on the node can be asked.
    pub fn started(&self, started: Started) {
        self.site.started(started);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of HTTP had failed");
        }
    }
}
