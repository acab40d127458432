//! `host:port`: syntax and resolution. Names are resolved each time, so that a client finds a node
//! at its new address.

use std::io;
use std::net::SocketAddr;

/// Whether the text has the form `host:port`.
pub(super) fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// All addresses of a `host:port`.
pub(super) async fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(addr) = text.parse() {
        return Ok(vec![addr]);
    }
    tokio::net::lookup_host(text).await.map(Iterator::collect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_needed() {
        assert!(is_address("127.0.0.1:7000") && is_address("[::1]:7000") && is_address("a.b:1"));
        for wrong in ["", "host", ":1", "host:", "host:99999", "host:x"] {
            assert!(!is_address(wrong), "{wrong}");
        }
    }
}
