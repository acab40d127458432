//! Frames of both protocols, and their tails.

use std::fmt::Debug;

use bytes::Bytes;
use cortado_protocol::client::{BatchReply, ClientRequest, ClientResponse};
use cortado_protocol::entry::Entry;
use cortado_protocol::frame::{
    PREFIX_BYTES, decode, encode, frame_len, from_postcard, to_postcard,
};
use cortado_protocol::job::{BatchHeader, JobEntry, JobSpec};
use cortado_protocol::limits::{CLIENT_FRAME_BYTES, PEER_FRAME_BYTES};
use cortado_protocol::peer::{Hello, LinkFrame};
use cortado_protocol::{Slot, SlotSet};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sample;

/// A frame of a link between nodes, preceded by its length.
pub fn peer(bytes: &[u8]) {
    let Some(frame) = unwrapped(bytes, PEER_FRAME_BYTES) else { return };
    let tail = round_trip::<LinkFrame>(&frame);
    round_trip::<Hello>(&frame);
    if let Some(tail) = tail {
        value::<JobSpec>(&tail);
        value::<Vec<(Slot, Vec<Vec<u8>>)>>(&tail);
        entry(&tail);
    }
}

/// A frame of a client's connection, preceded by its length.
pub fn client(bytes: &[u8]) {
    let Some(frame) = unwrapped(bytes, CLIENT_FRAME_BYTES) else { return };
    round_trip::<ClientRequest>(&frame);
    round_trip::<BatchHeader>(&frame);
    round_trip::<ClientResponse>(&frame);
    round_trip::<BatchReply>(&frame);
}

/// The frame after the length prefix, as the transport reads it.
fn unwrapped(bytes: &[u8], limit: usize) -> Option<Bytes> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    let len = frame_len(*prefix, limit).ok()?;
    // A fuzzer seldom gets the length right, so a shorter frame is accepted.
    Some(Bytes::copy_from_slice(&rest[..len.min(rest.len())]))
}

/// A decoded value can be encoded, and decodes to the same value again.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(frame: &Bytes) -> Option<Bytes> {
    let (value, tail) = decode::<T>(frame).ok()?;
    let again = encode(&value, &tail);
    assert!(again.len() <= PREFIX_BYTES + frame.len(), "encoding is the shortest there is");
    let (same, rest) = decode::<T>(&again.slice(PREFIX_BYTES..)).unwrap();
    assert_eq!((value, &tail), (same, &rest));
    Some(tail)
}

fn value<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = from_postcard::<T>(bytes) {
        assert_eq!(from_postcard::<T>(&to_postcard(&value)).unwrap(), value);
    }
}

/// Every slot that an entry's head names can be read.
fn entry(bytes: &Bytes) {
    let Ok(entry) = Entry::decode(bytes) else { return };
    assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    let mut whole = 0;
    for slot in entry.head.slots.iter() {
        let delta = entry.delta(slot).expect("it speaks for the slot");
        let alone = entry.restrict(SlotSet::one(slot));
        assert_eq!(alone.delta(slot), Some(delta.clone()));
        assert_eq!(Entry::decode(&alone.encode()).unwrap(), alone);
        value::<JobEntry>(&delta);
        whole += delta.len();
    }
    assert_eq!(whole, entry.data.len());
}

/// Each message of a link, and the greetings.
#[must_use]
pub fn peer_samples() -> Vec<Vec<u8>> {
    let hello = encode(&sample::hello("b"), b"");
    let ack = encode(&LinkFrame::Ack { next: 9 }, b"");
    let messages = sample::messages().into_iter().enumerate().map(|(seq, (message, tail))| {
        encode(&LinkFrame::Message { seq: seq as u64, message }, &tail)
    });
    messages.chain([hello, ack]).map(|frame| frame.to_vec()).collect()
}

/// Each request and answer.
#[must_use]
pub fn client_samples() -> Vec<Vec<u8>> {
    let requests = sample::requests().into_iter().map(|request| encode(&request, b""));
    let responses = sample::responses().into_iter().map(|response| encode(&response, b"tail"));
    let replies = sample::replies().into_iter().map(|reply| encode(&reply, b""));
    let batches = sample::batches().into_iter().map(|(header, bytes)| encode(&header, &bytes));
    requests.chain(responses).chain(replies).chain(batches).map(|frame| frame.to_vec()).collect()
}
