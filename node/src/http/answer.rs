//! Answers: JSON with an `ETag`, and refusals with a reason.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cortado_protocol::client::{ClientError, ClientResponse, ErrorKind};
use cortado_protocol::content_hash;
use serde::Serialize;
use utoipa::ToSchema;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request that is not answered, and why.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    status: StatusCode,
    message: String,
}

/// Why a request was not answered.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    /// What happened and what to do, as a sentence.
    error: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// A node answered something else than was asked.
    pub(super) fn unexpected(response: &ClientResponse) -> Self {
        tracing::error!(?response, "an answer to something else");
        Self::new(StatusCode::BAD_GATEWAY, "the node answered something else")
    }
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Self {
        let status = match error.kind {
            ErrorKind::BadInput => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Conflict | ErrorKind::Ended => StatusCode::CONFLICT,
        };
        Self::new(status, error.message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem { error: self.message };
        let body = serde_json::to_vec(&problem).expect("a problem serializes to memory");
        let mut response = (self.status, [(CONTENT_TYPE, JSON)], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A whole answer, which may be given several times.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    content_type: HeaderValue,
    body: Bytes,
    etag: HeaderValue,
}

impl Answer {
    pub(super) fn new(content_type: HeaderValue, body: Bytes) -> Self {
        // Weak: the body may be compressed on its way.
        let etag = format!("W/\"{:016x}\"", content_hash(&body));
        let etag = HeaderValue::from_str(&etag).expect("hexadecimal digits");
        Self { content_type, body, etag }
    }

    pub(super) fn json<T: Serialize>(value: &T) -> Self {
        let body = serde_json::to_vec(value).expect("reports serialize to memory");
        Self::new(JSON, body.into())
    }

    /// The answer to a request with these headers: none, if the client has it.
    pub(super) fn to(&self, headers: &HeaderMap) -> Response {
        let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let etag = self.etag.to_str().unwrap_or_default();
        let is_known = known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag));
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let body = Body::from(self.body.clone());
            ([(CONTENT_TYPE, self.content_type.clone())], body).into_response()
        };
        response.headers_mut().insert(ETAG, self.etag.clone());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}
