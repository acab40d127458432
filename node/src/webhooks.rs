//! Webhooks: sends rows of streams with POST.

use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::JobId;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES: usize = 64 << 10;

/// What came of an attempt.
pub struct Delivered {
    /// Its number.
    pub ticket: u64,
    /// The stream.
    pub job: JobId,
    /// Why the row was not taken, if it was not.
    pub result: Result<(), String>,
}

/// Sends rows. Connections are kept and used again.
pub struct Webhooks {
    client: Client<HttpConnector, Full<Bytes>>,
    done: UnboundedSender<Delivered>,
}

impl Webhooks {
    /// The sender, and what comes of its attempts. The core bounds how many are under way.
    #[must_use]
    pub fn new() -> (Self, UnboundedReceiver<Delivered>) {
        let (done, delivered) = mpsc::unbounded_channel();
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        (Self { client, done }, delivered)
    }

    /// Sends a row. Any answer but 2xx is a failure; redirections are not followed.
    pub fn deliver(&self, (ticket, job): (u64, JobId), url: String, key: String, body: String) {
        let (client, done) = (self.client.clone(), self.done.clone());
        tokio::spawn(async move {
            let sent = tokio::time::timeout(ANSWER, post(&client, &url, &key, body)).await;
            let result = sent.unwrap_or_else(|_| Err(format!("no answer within {ANSWER:?}")));
            // The node may be about to stop.
            let _ = done.send(Delivered { ticket, job, result });
        });
    }
}

async fn post(
    client: &Client<HttpConnector, Full<Bytes>>,
    url: &str,
    key: &str,
    body: String,
) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .header("idempotency-key", key)
        .body(Full::from(body))
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| words(&error))?;
    let status = answer.status();
    let _ = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    if status.is_success() { Ok(()) } else { Err(format!("the answer was {status}")) }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
