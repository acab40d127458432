//! Streams: which there are, how they stand, and their outputs.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::stream::{Cursor, Place, StreamRequest, StreamResponse};
use cortado_report::{MetricFilter, News, Stream, StreamName, latest_metrics, newest};
use cortado_stream::StreamPlan;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Problem, Refused};
use super::feed::{Sent, latest, rows};
use super::reader::Reader;
use super::site::Site;
use super::{cache, jobs};

/// The job of a stream.
pub(super) async fn find(site: &Arc<Site>, name: &str) -> Result<JobId, Refused> {
    let all = jobs::list(site).await?;
    let found = newest(&all, name).map(|status| status.job);
    found.ok_or_else(|| Refused::not_found(format!("there is no stream '{name}'")))
}

/// The plan of a stream.
pub(super) async fn plan(site: &Arc<Site>, job: JobId) -> Result<Arc<StreamPlan>, Refused> {
    let of = Arc::clone(site);
    let ask = async move {
        let spec = jobs::spec(&of, job).await?;
        let wrong = |_| Refused::new(StatusCode::BAD_GATEWAY, "this node can't read the plan");
        Ok(Arc::new(StreamPlan::parse(&spec.plan_toml).map_err(wrong)?))
    };
    site.cache.plans.get(&job.to_string(), cache::FOREVER, ask).await
}

/// The streams, by name, with their outputs.
#[utoipa::path(get, path = "/api/v1/streams", tag = "streams", responses(
    (status = 200, body = [StreamName]),
    (status = 503, body = Problem, description = "the node reads its log, or stops"),
))]
pub(super) async fn streams(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let of = Arc::clone(&site);
    let ask = async move {
        let mut all = cortado_report::streams(&jobs::list(&of).await?);
        for stream in &mut all {
            // Of a plan that can't be read now, the outputs are not known.
            if let Ok(plan) = plan(&of, stream.job).await {
                stream.outputs = plan.outputs().map(str::to_owned).collect();
            }
        }
        Ok(Answer::json(&all))
    };
    Ok(site.cache.answers.get("streams", cache::SHORT, ask).await?.to(&headers))
}

/// How a stream stands.
#[utoipa::path(get, path = "/api/v1/streams/{name}/status", tag = "streams",
    params(("name" = String, Path, description = "its name")),
    responses(
        (status = 200, body = Stream),
        (status = 404, body = Problem, description = "there is no such stream"),
        (status = 409, body = Problem, description = "it was cancelled"),
        (status = 503, body = Problem, description = "its coordinator does not answer yet"),
    )
)]
pub(super) async fn status(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let job = find(&site, &name).await?;
    let of = Arc::clone(&site);
    let ask = async move {
        match of.ask(ClientRequest::Stream(job, StreamRequest::Status)).await? {
            (ClientResponse::Stream(StreamResponse::Status(status)), _) => {
                Ok(Answer::json(&Stream::new(&name, job, &status)))
            }
            (other, _) => Err(Refused::unexpected(&other)),
        }
    };
    let question = format!("status {job}");
    Ok(site.cache.answers.get(&question, cache::SHORT, ask).await?.to(&headers))
}

/// Which metrics are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only of this region.
    region: Option<String>,
    /// Only of this day, for example `2026-01-31`.
    date: Option<String>,
    /// Only the part of this source.
    source: Option<String>,
}

/// The daily metrics as they stand: the last revision of each.
#[utoipa::path(get, path = "/api/v1/streams/{name}/metrics", tag = "streams",
    params(("name" = String, Path, description = "the stream's name"), Wanted),
    responses(
        (status = 200, body = [Object]),
        (status = 400, body = Problem, description = "a parameter is wrong"),
        (status = 404, body = Problem, description = "there is no such stream, or it has no such output"),
        (status = 409, body = Problem, description = "it was cancelled"),
        (status = 503, body = Problem, description = "its coordinator does not answer yet"),
    )
)]
pub(super) async fn metrics(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(Wanted { region, date, source }) =
        wanted.map_err(|error| Refused::bad(error.body_text()))?;
    let job = find(&site, &name).await?;
    let ask = metric_rows(Arc::clone(&site), job);
    let all = site.cache.metrics.get(&job.to_string(), cache::SHORT, ask).await?;
    let fields = [("region", region), ("date", date)];
    let fields = fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
    let wanted = MetricFilter { fields: fields.collect(), source };
    Ok(Answer::json(&latest_metrics(all.iter().cloned(), &wanted)).to(&headers))
}

/// All metrics as they stand. Only what is new is read, as long as somebody asks from time to time.
async fn metric_rows(site: Arc<Site>, job: JobId) -> Result<Arc<Vec<Map<String, Value>>>, Refused> {
    let plan = plan(&site, job).await?;
    let output = plan.rollup_outputs().next();
    let output = output.ok_or_else(|| Refused::not_found("this stream has no metrics"))?;
    let inside = site.inside()?;
    let mut known = site.rollups.of(job).lock_owned().await;
    loop {
        let answer = rows(inside, job, output, known.cursor.clone()).await?;
        let parse = |row: &cortado_protocol::stream::Row| match serde_json::from_str(&row.json) {
            Ok(Value::Object(row)) => Some(row),
            _ => None,
        };
        let new = answer.rows.iter().filter_map(parse);
        let all = std::mem::take(&mut known.rows).into_iter().chain(new);
        known.rows = latest_metrics(all, &MetricFilter::default());
        let more = answer.cursor != known.cursor;
        known.cursor = answer.cursor;
        if !more {
            return Ok(Arc::new(known.rows.clone()));
        }
    }
}

/// An event that is not counted.
#[derive(Serialize, ToSchema)]
pub(super) struct Dead {
    /// Why.
    reason: String,
    /// Where in the event the reason is: a JSON Pointer, or nothing.
    path: String,
    /// The line as it was sent; bytes that are no UTF-8 are replaced.
    raw: String,
}

/// A dead letter, with its event.
#[utoipa::path(get, path = "/api/v1/streams/{name}/dead/{id}", tag = "streams",
    params(
        ("name" = String, Path, description = "the stream's name"),
        ("id" = String, Path, description = "`dead_id` of its row"),
    ),
    responses(
        (status = 200, body = Dead),
        (status = 404, body = Problem, description = "there is no such stream or dead letter"),
        (status = 409, body = Problem, description = "it was cancelled"),
        (status = 503, body = Problem, description = "its coordinator does not answer yet"),
    )
)]
pub(super) async fn dead(
    State(site): State<Arc<Site>>,
    Path((name, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let job = find(&site, &name).await?;
    let place = Place::from_text(&id);
    let place =
        place.ok_or_else(|| Refused::not_found(format!("there is no dead letter '{id}'")))?;
    match site.ask(ClientRequest::Stream(job, StreamRequest::Dead(place))).await? {
        (ClientResponse::Stream(StreamResponse::Dead { reason, path }), raw) => {
            let raw = String::from_utf8_lossy(&raw).into_owned();
            Ok(Answer::json(&Dead { reason, path, raw }).to(&headers))
        }
        (other, _) => Err(Refused::unexpected(&other)),
    }
}

/// Where a reader begins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// The cursor of the last row that is known; `latest` for the newest rows; all rows without it. A header
    /// `Last-Event-ID` counts more.
    after: Option<String>,
    /// Whether lists of events are left out, which may be long.
    #[serde(default)]
    brief: bool,
}

/// The rows of an output, each with its cursor: those that there are as lines of JSON, or, with `Accept:
/// text/event-stream`, also those that come, until the event `ended`.
#[utoipa::path(get, path = "/api/v1/streams/{name}/{output}", tag = "streams",
    params(
        ("name" = String, Path, description = "the stream's name"),
        ("output" = String, Path, description = "for example `analytics.window`"),
        From,
    ),
    responses(
        (status = 200, content((String = "application/x-ndjson"), (String = "text/event-stream"))),
        (status = 400, body = Problem, description = "a parameter is wrong"),
        (status = 404, body = Problem, description = "there is no such stream or output"),
        (status = 409, body = Problem, description = "the stream was cancelled"),
        (status = 503, body = Problem, description = "its coordinator does not answer yet"),
    )
)]
pub(super) async fn output(
    State(site): State<Arc<Site>>,
    Path((name, output)): Path<(String, String)>,
    from: Result<Query<From>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(from) = from.map_err(|error| Refused::bad(error.body_text()))?;
    let job = find(&site, &name).await?;
    let plan = plan(&site, job).await?;
    if plan.outputs().all(|known| known != output) {
        let names = plan.outputs().collect::<Vec<_>>().join(", ");
        return Err(Refused::not_found(format!("there is no output '{output}': expected {names}")));
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let after = match last.or(from.after.as_deref()) {
        None => Some(Cursor::default()),
        Some("latest") => None,
        Some(text) => {
            let cursor = Cursor::from_text(text);
            Some(cursor.ok_or_else(|| Refused::bad(format!("'{text}' is no cursor")))?)
        }
    };
    let accepts =
        |value: &HeaderValue| value.to_str().is_ok_and(|v| v.contains("text/event-stream"));
    if headers.get_all(ACCEPT).iter().any(accepts) {
        return live(&site, (job, output), after, from.brief);
    }
    let after = match after {
        Some(cursor) => cursor,
        None => latest(site.inside()?, job).await?,
    };
    lines(site, (job, output), after, from.brief).await
}

/// Rows as they come.
fn live(
    site: &Site,
    (job, output): (JobId, String),
    after: Option<Cursor>,
    is_brief: bool,
) -> Result<Response, Refused> {
    let inside = site.inside()?;
    let feed = site.feeds.of(inside, job, &output);
    let reader = Reader::new(inside.clone(), (job, output), feed, after);
    let events = stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        let (event, next) = match reader.next().await {
            Some(Ok(row)) => {
                let event = Event::default().id(row.cursor.as_str()).data(row.text(is_brief));
                (event, Some(reader))
            }
            // The client comes back with its cursor, after the pause that it was told.
            Some(Err(error)) => (Event::default().comment(error.message.replace('\n', " ")), None),
            None => (Event::default().event("ended").data(""), None),
        };
        Some((Ok::<_, Infallible>(event), next))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Rows that there are.
async fn lines(
    site: Arc<Site>,
    (job, output): (JobId, String),
    after: Cursor,
    is_brief: bool,
) -> Result<Response, Refused> {
    let first = rows(site.inside()?, job, &output, after.clone()).await?;
    let state = (News::after(after.clone()), after, Some(first));
    let parts = stream::try_unfold(state, move |(mut news, at, answer)| {
        let (site, output) = (Arc::clone(&site), output.clone());
        async move {
            let answer = match answer {
                Some(answer) => answer,
                None => {
                    let gone = |_| std::io::Error::other("the node stops");
                    let inside = site.inside().map_err(gone)?;
                    let failed = |error: cortado_protocol::client::ClientError| {
                        std::io::Error::other(error.message)
                    };
                    rows(inside, job, &output, at.clone()).await.map_err(failed)?
                }
            };
            if answer.cursor == at {
                return Ok::<_, std::io::Error>(None);
            }
            let mut text = String::new();
            for line in news.take(answer.rows, &answer.cursor) {
                text.push_str(Sent::new(line).text(is_brief));
                text.push('\n');
            }
            Ok(Some((text, (news, answer.cursor, None))))
        }
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}
