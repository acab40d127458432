//! Who may ask, and under which name; and headers of every answer.
//!
//! A page of another site that the reader's browser has open must not read from this node. So the `Host`
//! must be an address or a known name (against DNS rebinding), and only pages of members may read the
//! answers (CORS).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Refused;
use super::site::Site;
use crate::config::Readers;

/// Lets a request pass, or refuses it.
pub(super) async fn guard(
    State(site): State<Arc<Site>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = match check(&site, from.ip(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    site.meters.http(response.status().as_u16());
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(X_FRAME_OPTIONS, "DENY");
    set(VARY, "Origin, Accept, Accept-Encoding");
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"));
    if let Some(origin) = origin.filter(|origin| is_page_of_a_member(&site, origin)) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

fn check(site: &Site, from: IpAddr, headers: &HeaderMap) -> Result<(), Refused> {
    if site.readers == Readers::Local && !from.to_canonical().is_loopback() {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "this node answers only programs on its own machine over HTTP; http_readers = \"everyone\" \
             in its configuration lets others read",
        ));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_known(host, &site.hosts) {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "this node is not known as '{host}'; http_hosts in its configuration has the names"
        ),
    ))
}

/// Whether a `Host` is an address, or one of these names.
fn is_known(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_page_of_a_member(site: &Site, origin: &HeaderValue) -> bool {
    let Some(host) = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) else {
        return false;
    };
    // A reader may have typed the name.
    let port = host.strip_prefix("localhost:");
    let address = port.map_or_else(|| host.to_owned(), |port| format!("127.0.0.1:{port}"));
    site.members().contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_known_names_are_hosts() {
        let names = ["localhost".to_owned(), "node-1".to_owned()];
        for host in ["127.0.0.1:5000", "127.0.0.1", "[::1]:80", "[::1]", "LocalHost:5000", "node-1"]
        {
            assert!(is_known(host, &names), "{host}");
        }
        for host in ["", "evil.example", "evil.example:5000", "localhost.evil.example", "node-1:x"]
        {
            assert!(!is_known(host, &names), "{host}");
        }
    }
}
