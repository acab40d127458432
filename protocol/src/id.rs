//! Identifiers of nodes, jobs and logs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::NODE_ID_BYTES;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a node name.
    #[error(
        "'{0}' is not a node name: expected 1 to {NODE_ID_BYTES} characters of a-z, 0-9, '-' or '.'"
    )]
    Node(String),
    /// Not a UUID.
    #[error("'{0}' is not a job id: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
    Job(String),
}

/// The lasting name of a node. Its certificate contains it; roles, acknowledgements and sequence
/// numbers are keyed on it, never on an address or a membership identity.
///
/// A short inline string: cheap to copy, ordered bytewise (in an election the highest id wins).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; NODE_ID_BYTES]);

impl NodeId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(NODE_ID_BYTES);
        // Only ASCII is ever stored.
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// The names, with `separator` between them.
    pub fn join<'a>(nodes: impl IntoIterator<Item = &'a Self>, separator: &str) -> String {
        nodes.into_iter().map(Self::as_str).collect::<Vec<_>>().join(separator)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if text.is_empty() || text.len() > NODE_ID_BYTES || !text.bytes().all(ok) {
            return Err(IdError::Node(text.chars().take(64).collect()));
        }
        let mut name = [0; NODE_ID_BYTES];
        name[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(name))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = NodeId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node name")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NodeId, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

macro_rules! uuid_id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                uuid::Uuid::parse_str(text)
                    .map(|uuid| Self(uuid.as_u128()))
                    .map_err(|_| IdError::Job(text.chars().take(64).collect()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.to_be_bytes().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(|b| Self(u128::from_be_bytes(b)))
                }
            }
        }
    };
}

uuid_id!(
    JobId,
    "One run of a plan over one upload. Chosen by the client as a UUIDv7 (RFC 9562 §5.7)."
);
uuid_id!(
    LogId,
    "One write-ahead log on one disk. A node that returns with a blank disk has a new one, which voids what it once acknowledged."
);

impl JobId {
    /// The time at which the client made the id, in milliseconds since the Unix epoch (UUIDv7, RFC
    /// 9562 §5.7).
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// Whether it is a UUIDv7. A cluster takes no other ids for new jobs: tombstones are dropped
    /// oldest first, and the id 0 means "no job" in a log.
    #[must_use]
    pub fn is_v7(self) -> bool {
        (self.0 >> 76) & 0xf == 7 && (self.0 >> 62) & 0b11 == 0b10
    }

    /// The UUIDv7 of this time with these last bits, for tests and simulations.
    #[must_use]
    pub fn v7(unix_ms: u64, last: u32) -> Self {
        let ms = u128::from(unix_ms & 0xffff_ffff_ffff);
        Self(ms << 80 | 7 << 76 | 0b10 << 62 | u128::from(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_round_trip_and_bad_ones_are_refused() {
        for name in ["a", "node-12", "cortado-0.cortado.default", "aaaaaaaaaaaaaaaaaaaaaaaa"] {
            if name.len() <= NODE_ID_BYTES {
                assert_eq!(name.parse::<NodeId>().unwrap().to_string(), name);
            }
        }
        for name in ["", "Node", "a b", "ä", "aaaaaaaaaaaaaaaaaaaaaaaaa", "a/b"] {
            assert!(name.parse::<NodeId>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_version_7_id_is_known_from_others() {
        assert!(JobId::v7(1_700_000_000_000, 3).is_v7());
        assert_eq!(JobId::v7(1_700_000_000_000, 3).unix_ms(), 1_700_000_000_000);
        assert!(JobId(uuid::uuid!("01890a5d-ac96-774b-bcce-b302099a8057").as_u128()).is_v7());
        assert!(!JobId(uuid::uuid!("919108f7-52d1-4320-9bac-f847db4148a8").as_u128()).is_v7());
        assert!(!JobId(0).is_v7() && !JobId(u128::MAX).is_v7());
    }

    #[test]
    fn a_node_name_costs_its_length_on_the_wire() {
        let node: NodeId = "node-1".parse().unwrap();
        let bytes = postcard::to_stdvec(&node).unwrap();
        assert_eq!(bytes.len(), 7);
        assert_eq!(postcard::from_bytes::<NodeId>(&bytes).unwrap(), node);
        assert!(postcard::from_bytes::<NodeId>(&[2, b'A', b'B']).is_err());
    }
}
