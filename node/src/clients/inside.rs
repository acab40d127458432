//! Requests from within this process: those that come over HTTP. They have a gate of their own, so
//! they take no room from clients.

use std::sync::Arc;

use bytes::Bytes;
use cortado_protocol::client::{
    ANSWER_TIMEOUT, ClientError, ClientRequest, ClientResponse, ErrorKind,
};
use tokio::sync::oneshot;

use super::gate::Gate;
use super::shared::{ClientEvent, Shared, Waiting, next_ticket, report};
use crate::lock::lock;

/// Requests under way.
const REQUESTS: usize = 64;
/// What a request may take of the gate's bytes.
const REQUEST_BYTES: usize = 64 << 10;

/// Asks this node like a client.
#[derive(Clone, Debug)]
pub struct Inside {
    shared: Arc<Shared>,
    gate: Gate,
}

impl Inside {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, gate: Gate::new(REQUESTS, REQUESTS * REQUEST_BYTES) }
    }

    /// Asks, and waits for the answer and its tail. An answer that says what went wrong is an error.
    ///
    /// # Errors
    /// What the node answers, or that it does not in time.
    pub async fn ask(
        &self,
        request: ClientRequest,
    ) -> Result<(ClientResponse, Bytes), ClientError> {
        let _room = self.gate.enter(REQUEST_BYTES).await;
        let ticket = next_ticket(&self.shared);
        let (sender, answered) = oneshot::channel();
        lock(&self.shared.waiting).insert(ticket, Waiting::Inside(sender));
        let mut asked = Asked { shared: Arc::clone(&self.shared), ticket, is_over: false };
        let unavailable = |message: &str| ClientError::new(ErrorKind::Unavailable, message);
        report(&self.shared, ClientEvent::Request { ticket, request })
            .await
            .map_err(|_| unavailable("the node stops"))?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok((response, tail))) => {
                asked.is_over = true;
                match response {
                    ClientResponse::Error(error) => Err(error),
                    response => Ok((response, tail)),
                }
            }
            Ok(Err(_)) => Err(unavailable("the node stops")),
            Err(_) => Err(unavailable("no answer in time")),
        }
    }
}

/// A request under way. If nobody waits for it any more, the core is told.
struct Asked {
    shared: Arc<Shared>,
    ticket: u64,
    is_over: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_over || lock(&self.shared.waiting).remove(&self.ticket).is_none() {
            return;
        }
        let (shared, ticket) = (Arc::clone(&self.shared), self.ticket);
        tokio::spawn(async move { report(&shared, ClientEvent::ClientLeft { ticket }).await });
    }
}
