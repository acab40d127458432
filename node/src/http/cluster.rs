//! Members, owners of slots, what happened, and how this node is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cortado_protocol::PROTOCOL_VERSION;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_report::{Cluster, Event, Ring};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Problem, Refused};
use super::cache::SHORT;
use super::site::Site;
use crate::health::Health;

/// How long an answer may wait for events, in seconds.
const LONGEST_WAIT: u8 = 5;

/// The members, as this node sees them.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "cluster", responses(
    (status = 200, body = Cluster),
    (status = 503, body = Problem, description = "the node reads its log, or stops"),
))]
pub(super) async fn nodes(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let of = Arc::clone(&site);
    let ask = async move {
        match of.ask(ClientRequest::Cluster).await? {
            (ClientResponse::Cluster(view), _) => Ok(Answer::json(&Cluster::from(&view))),
            (other, _) => Err(Refused::unexpected(&other)),
        }
    };
    Ok(site.cache.answers.get("nodes", SHORT, ask).await?.to(&headers))
}

/// The owners of each slot, and moves in progress.
#[utoipa::path(get, path = "/api/v1/ring", tag = "cluster", responses(
    (status = 200, body = Ring),
    (status = 503, body = Problem, description = "the node reads its log, or stops"),
))]
pub(super) async fn ring(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let of = Arc::clone(&site);
    let ask = async move {
        match of.ask(ClientRequest::Ring).await? {
            (ClientResponse::Ring(view), _) => Ok(Answer::json(&Ring::from(&view))),
            (other, _) => Err(Refused::unexpected(&other)),
        }
    };
    Ok(site.cache.answers.get("ring", SHORT, ask).await?.to(&headers))
}

/// Which events are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// `BOOT.NUMBER` of the last event that is known; all events without it.
    #[param(pattern = "^[0-9]{1,19}\\.[0-9]{1,19}$")]
    after: Option<String>,
    /// How many seconds to wait if there are none; at most 5.
    #[param(maximum = 5)]
    wait: Option<u8>,
}

/// Events of this node.
#[derive(Serialize, ToSchema)]
pub(super) struct Log {
    /// Its boot: each boot numbers its events from the start.
    boot: u64,
    /// The events, oldest first.
    events: Vec<Event>,
}

/// What this node saw happen since it started.
#[utoipa::path(get, path = "/api/v1/log", tag = "cluster", params(Wanted), responses(
    (status = 200, body = Log),
    (status = 400, body = Problem, description = "a parameter is wrong"),
))]
pub(super) async fn log(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(wanted) = wanted.map_err(|error| Refused::bad(error.body_text()))?;
    let known = |text: &str| {
        let (boot, number) = text.split_once('.')?;
        Some((boot.parse().ok()?, number.parse().ok()?))
    };
    let (boot, after) = match &wanted.after {
        None => (0, 0),
        Some(text) => known(text)
            .ok_or_else(|| Refused::bad(format!("after={text}: expected BOOT.NUMBER")))?,
    };
    let wait = wanted.wait.unwrap_or_default();
    if wait > LONGEST_WAIT {
        return Err(Refused::bad(format!("wait={wait}: expected at most {LONGEST_WAIT} seconds")));
    }
    let wait = Duration::from_secs(wait.into());
    match site.history.after(boot, after, wait).await {
        ClientResponse::Log { boot, events } => {
            let events = events.iter().map(|event| Event::new(site.node, boot, event)).collect();
            Ok(Answer::json(&Log { boot, events }).to(&headers))
        }
        other => Err(Refused::unexpected(&other)),
    }
}

/// Whether the process lives. It does not depend on anything else.
#[utoipa::path(get, path = "/healthz", tag = "node", responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Whether this node serves, or why not: its loop turns and its disk takes writes.
#[utoipa::path(get, path = "/readyz", tag = "node", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 503, body = String, content_type = "text/plain"),
))]
pub(super) async fn ready(State(site): State<Arc<Site>>) -> Response {
    let health = site.doctor.examine().await;
    let status = match health {
        Health::Ok => StatusCode::OK,
        Health::Starting | Health::Ill(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{health}\n")).into_response()
}

/// What runs here.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    version: &'static str,
    revision: &'static str,
    protocol: u32,
    node: String,
}

/// The version of this node.
#[utoipa::path(get, path = "/version", tag = "node", responses((status = 200, body = Version)))]
pub(super) async fn version(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("CORTADO_REVISION"),
        protocol: PROTOCOL_VERSION,
        node: site.node.to_string(),
    };
    Answer::json(&version).to(&headers)
}
