//! How owner and publishers ask.

use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::client::{ClientRequest, ClientResponse, ErrorKind};

use crate::sim::client::Sent;

/// A request or batch without an answer is sent again after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

/// One question at a time, and a rest after "not now".
#[derive(Default)]
pub(super) struct Asking {
    asked_at: Option<Duration>,
    pub(super) rest_until: Duration,
}

impl Asking {
    pub(super) fn may_ask(&self, now: Duration) -> bool {
        now >= self.rest_until && self.asked_at.is_none_or(|at| now >= at + PATIENCE)
    }

    pub(super) fn ask(
        &mut self,
        now: Duration,
        request: ClientRequest,
    ) -> Vec<(Option<NodeId>, Sent)> {
        self.asked_at = Some(now);
        vec![(None, Sent::Request(request))]
    }

    /// Whether the answer is one to act on; an error is given back.
    pub(super) fn answered(
        &mut self,
        now: Duration,
        response: &ClientResponse,
    ) -> Result<bool, String> {
        if self.asked_at.take().is_none() {
            return Ok(false);
        }
        match response {
            ClientResponse::Error(error)
                if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::NotFound) =>
            {
                self.rest_until = now + Duration::from_millis(200);
                Ok(false)
            }
            ClientResponse::Error(error) => Err(error.message.clone()),
            _ => Ok(true),
        }
    }
}
