//! The name or address of a host, as given to `cortado init`.

use std::net::IpAddr;

use crate::Error;

/// Longest name of a host (RFC 1035, §2.3.4).
const NAME_BYTES: usize = 253;

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// By an address.
    Address(IpAddr),
    /// By a name, which may resolve to another address later.
    Name(String),
}

impl Host {
    /// Parses a name or an address; an IPv6 address may have brackets.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = inner.unwrap_or(text).parse() {
            return Ok(Self::Address(address));
        }
        let bad = |why: &str| {
            Err(Error::BadInput(format!("'{text}' is no host: expected a name or an address{why}")))
        };
        if text.is_empty() {
            return bad("; is there a comma too many?");
        }
        if text.contains(':') {
            return bad(" without a port: nodes listen on 7400 to 7403");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.len() > NAME_BYTES || !text.bytes().all(plain) {
            return bad(" of letters, digits, dots and dashes");
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// The address; `None` for a name.
    pub(super) const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }

    pub(super) const fn is_v6(&self) -> bool {
        matches!(self, Self::Address(IpAddr::V6(_)))
    }

    /// `host:port`, with brackets if necessary.
    pub(super) fn with_port(&self, port: u16) -> String {
        match self {
            Self::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
            Self::Name(name) => format!("{name}:{port}"),
        }
    }
}

/// Checks that each node has its own host, since all nodes listen on the same ports.
pub(super) fn check_different(hosts: &[Host]) -> Result<(), Error> {
    for (at, host) in hosts.iter().enumerate() {
        if hosts[..at].contains(host) {
            let name = match host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.clone(),
            };
            return Err(Error::BadInput(format!(
                "the host {name} is named twice: each node needs one of its own; for several nodes \
                 on one machine see `cortado local up`"
            )));
        }
        if let Host::Address(address) = host
            && address.is_unspecified()
        {
            return Err(Error::BadInput(format!("'{address}' is no address of a host")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds_and_names_are_hosts() {
        for (text, with_port) in [
            ("::1", "[::1]:7400"),
            ("[fd00::1]", "[fd00::1]:7400"),
            (" 10.0.0.1", "10.0.0.1:7400"),
            ("host-1.example", "host-1.example:7400"),
        ] {
            assert_eq!(Host::parse(text).unwrap().with_port(7400), with_port);
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_what_to_do() {
        for (text, told) in [
            ("", "comma too many"),
            ("a:7400", "without a port"),
            ("10.0.0.1:7400", "without a port"),
            ("a b", "letters"),
        ] {
            let error = Host::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(told), "{error}");
        }
        let twice = [Host::parse("a").unwrap(), Host::parse(" a").unwrap()];
        assert!(check_different(&twice).unwrap_err().to_string().contains("named twice"));
        for any in ["0.0.0.0", "[::]"] {
            let error = check_different(&[Host::parse(any).unwrap()]).unwrap_err();
            assert!(error.to_string().contains("no address of a host"), "{error}");
        }
    }
}
