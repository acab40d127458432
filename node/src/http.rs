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

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use site::Site;
pub use site::{HttpConfig, Known, Started};

/// Answers over HTTP. Dropping it ends that.
pub struct Http {
    site: Arc<Site>,
    addr: SocketAddr,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Http {
    /// Listens. Until [`Http::started`], it answers only how the node is.
    ///
    /// # Errors
    /// If the port can't be used.
    pub async fn open(config: HttpConfig, known: Known) -> io::Result<Self> {
        let listener = TcpListener::bind(config.bind).await?;
        let addr = listener.local_addr()?;
        let places = Arc::new(Semaphore::new(serve::CONNECTIONS));
        let site = Arc::new(Site::new(config, known, Arc::clone(&places)));
        let (stopping, stop) = watch::channel(false);
        let router = routes::router(Arc::clone(&site));
        let task = tokio::spawn(serve::run(listener, router, places, stop));
        Ok(Self { site, addr, stopping, task })
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

    /// Ends all connections.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        // The panic hook has logged a panic of the task.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}
