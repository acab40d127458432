//! The live page: a document, a style sheet and modules, all of which are part of the program.

use std::sync::{Arc, LazyLock};

use axum::extract::{Path, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use super::answer::{Answer, Refused};
use super::site::Site;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("page/", $name)))),*]
    };
}

/// The files of the page, by name.
static FILES: LazyLock<Vec<(&str, Answer)>> = LazyLock::new(|| {
    let answer = |(name, text): (&'static str, &'static str)| {
        let kind = if name.ends_with(".css") { CSS } else { SCRIPT };
        (name, Answer::new(kind, Bytes::from_static(text.as_bytes())))
    };
    files![
        "alerts.js",
        "api.js",
        "chart.js",
        "cluster.js",
        "dom.js",
        "events.js",
        "feed.js",
        "format.js",
        "happenings.js",
        "job.js",
        "jobs.js",
        "letters.js",
        "main.js",
        "metrics.js",
        "page.css",
        "progress.js",
        "publishers.js",
        "receipt.js",
        "ring.js",
        "stats.js",
        "tabs.js",
        "theme.js",
        "timeline.js",
        "windows.js",
    ]
    .map(answer)
    .into()
});

/// The document.
pub(super) async fn index(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    static TEXT: LazyLock<Answer> =
        LazyLock::new(|| Answer::new(HTML, Bytes::from_static(include_bytes!("page/index.html"))));
    let mut response = TEXT.to(&headers);
    let policy = HeaderValue::from_str(&policy(&site.members()));
    let policy = policy.unwrap_or(HeaderValue::from_static("default-src 'none'"));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// What the document may load: its own files, and answers of members, with which it goes on when this node
/// is gone.
fn policy(members: &[String]) -> String {
    let members: String = members.iter().map(|member| format!(" http://{member}")).collect();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'{members}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// A style sheet or a module.
pub(super) async fn file(
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let found = FILES.iter().find(|(known, _)| *known == name);
    let (_, answer) = found.ok_or_else(|| Refused::not_found("the page has no such file"))?;
    Ok(answer.to(&headers))
}

/// Whether the page has a file of this name.
#[cfg(test)]
pub(super) fn has(name: &str) -> bool {
    FILES.iter().any(|(known, _)| *known == name)
}
