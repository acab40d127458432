//! Decodes a membership datagram before foca reads it, and checks what foca does not check.

use bytes::{Buf, BufMut};
use cortado_protocol::NodeId;
use cortado_protocol::limits::GOSSIP_BYTES;
use foca::{Codec, Header, Message, PostcardCodec, State};

use crate::Identity;

/// Name of the addressee in an announcement to a seed whose name is not known yet.
pub(super) const ANYONE: &str = ".";

/// Why a datagram was dropped: the first reason that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("not a membership datagram")]
    Malformed,
    #[error("its sender is not the one it names")]
    Forged,
    #[error("it speaks of a generation from the future")]
    Future,
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    pub(super) updates: Vec<foca::Member<Identity>>,
}

impl Packet {
    /// Decodes a datagram. `from` is the sender's name, proved by its certificate.
    pub(super) fn decode(from: NodeId, mut data: &[u8]) -> Result<Self, Refusal> {
        if data.len() > GOSSIP_BYTES {
            return Err(Refusal::Malformed);
        }
        let header = PostcardCodec.decode_header(&mut data).map_err(|_| Refusal::Malformed)?;
        let mut updates = Vec::new();
        if data.len() == 1 {
            return Err(Refusal::Malformed);
        }
        if data.len() >= 2 {
            // The count only ends the loop; no memory is allocated for it.
            for _ in 0..data.get_u16() {
                let update =
                    PostcardCodec.decode_member(&mut data).map_err(|_| Refusal::Malformed)?;
                updates.push(update);
            }
        }
        let packet = Self { header, updates };
        if data.has_remaining() || packet.named().any(|id| id.id.as_str() == ANYONE) {
            return Err(Refusal::Malformed);
        }
        if packet.header.src.id != from {
            return Err(Refusal::Forged);
        }
        Ok(packet)
    }

    /// The datagram's bytes.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = Vec::with_capacity(GOSSIP_BYTES);
        PostcardCodec.encode_header(&self.header, &mut bytes)?;
        if self.header.message != Message::Announce {
            bytes.put_u16(u16::try_from(self.updates.len()).unwrap_or(u16::MAX));
            for update in &self.updates {
                PostcardCodec.encode_member(update, &mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Readdresses an announcement for [`ANYONE`] to this node. Returns whether it was one.
    pub(super) fn readdress(&mut self, me: &Identity) -> bool {
        let to_anyone = self.header.message == Message::Announce
            && self.header.dst.id.as_str() == ANYONE
            && self.updates.is_empty();
        if to_anyone {
            self.header.dst = *me;
        }
        to_anyone
    }

    /// The identities that the datagram declares down.
    pub(super) fn down(&self) -> impl Iterator<Item = &Identity> {
        self.updates.iter().filter(|update| update.state() == State::Down).map(foca::Member::id)
    }

    /// All identities in the datagram but the addressee's.
    pub(super) fn named(&self) -> impl Iterator<Item = &Identity> {
        let third = match &self.header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => {
                Some(origin)
            }
            _ => None,
        };
        let updates = self.updates.iter().map(foca::Member::id);
        std::iter::once(&self.header.src).chain(third).chain(updates)
    }
}
