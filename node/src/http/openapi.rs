//! The description of everything that can be asked (OpenAPI 3.1), made from the handlers.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::OpenApi;

use super::answer::{Answer, JSON};
use super::{cluster, data, jobs, metrics, streams};

#[derive(OpenApi)]
#[openapi(
    info(title = "Cortado", description = "What a node answers over HTTP."),
    paths(
        cluster::nodes,
        cluster::ring,
        cluster::log,
        cluster::alive,
        cluster::ready,
        cluster::version,
        jobs::jobs,
        jobs::job,
        jobs::rejects,
        jobs::result,
        streams::streams,
        streams::status,
        streams::metrics,
        streams::dead,
        streams::output,
        data::data,
        metrics::metrics,
        document,
    )
)]
pub(super) struct Document;

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "node", responses(
    (status = 200, body = Object),
))]
pub(super) async fn document(headers: HeaderMap) -> Response {
    static TEXT: LazyLock<Answer> = LazyLock::new(|| {
        let text = Document::openapi().to_json().expect("the description serializes to memory");
        Answer::new(JSON, text.into())
    });
    TEXT.to(&headers)
}
