//! Requests over HTTP.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::Cluster;

/// Longest time for an answer, and for the next line of one that goes on.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, by names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body, which is JSON.
    ///
    /// # Panics
    /// If it is not, or the status is no success.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A server-sent event: its id and its data.
pub type Sent = (String, String);

/// Asks one node.
pub struct Http {
    agent: ureq::Agent,
    addr: SocketAddr,
}

impl Cluster {
    /// Asks a node over HTTP.
    ///
    /// # Panics
    /// If it has no port for that.
    #[must_use]
    pub fn http(&self, node: &str) -> Http {
        Http::at(self.node(node).http_addr().expect("a node answers over HTTP"))
    }
}

impl Http {
    /// Asks the node that listens there.
    #[must_use]
    pub fn at(addr: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let config = config.timeout_connect(Some(PATIENCE)).timeout_recv_response(Some(PATIENCE));
        Self { agent: config.build().into(), addr }
    }

    /// Where the node listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Gets a path; `None` if the node does not answer.
    #[must_use]
    pub fn try_get(&self, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut request = self.agent.get(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().ok()?;
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let headers = headers.collect();
        let mut body = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut body).ok()?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Some(Answer { status: response.status().as_u16(), headers, body })
    }

    /// Gets a path.
    ///
    /// # Panics
    /// If the node does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path, &[]).expect("the node answers")
    }

    /// Server-sent events of a path, until the answer ends.
    ///
    /// # Panics
    /// If the node does not answer with events.
    pub fn events(&self, path: &str, last: Option<&str>) -> impl Iterator<Item = Sent> + use<> {
        let mut request = self.agent.get(format!("http://{}{path}", self.addr));
        request = request.header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.call().expect("the node answers");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        let mut sent = Sent::default();
        std::iter::from_fn(move || {
            loop {
                let line = lines.next()?.ok()?;
                if let Some(id) = line.strip_prefix("id: ") {
                    id.clone_into(&mut sent.0);
                } else if let Some(data) = line.strip_prefix("data: ") {
                    data.clone_into(&mut sent.1);
                } else if line.is_empty() && !sent.0.is_empty() {
                    return Some(std::mem::take(&mut sent));
                }
            }
        })
    }
}
