//! `/data`: the newest windows and totals of a stream, from what this node keeps of them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::stream::{StreamRequest, StreamResponse};
use cortado_report::{Stream, streams};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::answer::{Answer, Problem, Refused};
use super::site::Site;
use super::streams::{find, plan};
use super::{cache, jobs};

/// Which stream is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Its name; `events` without it, or the only stream that there is.
    stream: Option<String>,
}

/// The newest window of a stream; `windows`: the newest ones, oldest first; `totals`: its events by what
/// became of them.
#[utoipa::path(get, path = "/data", tag = "streams", params(Wanted), responses(
    (status = 200, body = Object),
    (status = 400, body = Problem, description = "a parameter is wrong"),
    (status = 404, body = Problem, description = "there is no such stream"),
    (status = 409, body = Problem, description = "it was cancelled"),
    (status = 503, body = Problem, description = "its coordinator does not answer yet"),
))]
pub(super) async fn data(
    State(site): State<Arc<Site>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(wanted) = wanted.map_err(|error| Refused::bad(error.body_text()))?;
    let question = format!("data {}", wanted.stream.as_deref().unwrap_or_default());
    let ask = newest_windows(Arc::clone(&site), wanted.stream);
    Ok(site.cache.answers.get(&question, cache::SHORT, ask).await?.to(&headers))
}

async fn newest_windows(site: Arc<Site>, wanted: Option<String>) -> Result<Answer, Refused> {
    let name = match wanted {
        Some(name) => name,
        None => default_stream(&site).await?,
    };
    let job = find(&site, &name).await?;
    let plan = plan(&site, job).await?;
    let none = || Refused::not_found("this stream has no windows");
    let output = plan.window_outputs().next().ok_or_else(none)?.to_owned();
    let inside = site.inside()?;
    let windows = site.feeds.of(inside, job, &output).windows().await?;
    // A coordinator that has just begun does not know the totals yet.
    let totals = match inside.ask(ClientRequest::Stream(job, StreamRequest::Status)).await {
        Ok((ClientResponse::Stream(StreamResponse::Status(status)), _)) => {
            json!(Stream::new(&name, job, &status).events)
        }
        _ => Value::Null,
    };
    let mut data: Map<String, Value> = windows.last().cloned().unwrap_or_default();
    data.insert("stream".into(), name.into());
    data.insert("totals".into(), totals);
    data.insert("windows".into(), windows.into_iter().map(Value::Object).collect());
    Ok(Answer::json(&data))
}

async fn default_stream(site: &Arc<Site>) -> Result<String, Refused> {
    let mut all = streams(&jobs::list(site).await?);
    let at = all.iter().position(|of| of.stream == "events").unwrap_or_default();
    if all.is_empty() {
        return Err(Refused::not_found("there is no stream"));
    }
    Ok(all.swap_remove(at).stream)
}
