//! Which path leads where.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{Router, get};
use tower_http::compression::CompressionLayer;

use super::answer::Refused;
use super::guard::guard;
use super::site::Site;
use super::{cluster, data, jobs, metrics, openapi, page, streams};

pub(super) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .route("/data", get(data::data))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(cluster::alive))
        .route("/readyz", get(cluster::ready))
        .route("/version", get(cluster::version))
        .route("/api/v1/nodes", get(cluster::nodes))
        .route("/api/v1/ring", get(cluster::ring))
        .route("/api/v1/log", get(cluster::log))
        .route("/api/v1/jobs", get(jobs::jobs))
        .route("/api/v1/jobs/{id}", get(jobs::job))
        .route("/api/v1/jobs/{id}/rejects", get(jobs::rejects))
        .route("/api/v1/jobs/{id}/results/{file}", get(jobs::result))
        .route("/api/v1/streams", get(streams::streams))
        .route("/api/v1/streams/{name}/status", get(streams::status))
        .route("/api/v1/streams/{name}/metrics", get(streams::metrics))
        .route("/api/v1/streams/{name}/dead/{id}", get(streams::dead))
        .route("/api/v1/streams/{name}/{output}", get(streams::output))
        .route("/api/v1/openapi.json", get(openapi::document))
        .fallback(async || {
            Refused::not_found(
                "there is nothing here; / has a page, /api/v1/openapi.json what can be asked",
            )
        })
        .method_not_allowed_fallback(async || {
            let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
            Refused::new(status, "only GET and HEAD are known here")
        })
        .layer(DefaultBodyLimit::max(0))
        .layer(CompressionLayer::new())
        .layer(from_fn_with_state(Arc::clone(&site), guard))
        .with_state(site)
}
