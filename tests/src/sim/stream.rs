//! Simulated streams: an owner that makes the stream, reads what is published and ends it;
//! publishers that die and come back; and a model that counts the same events in one set.

mod asking;
mod feed;
mod model;
mod owner;
mod publisher;
mod webhook;

pub(crate) use feed::Feed;
pub(crate) use owner::StreamOwner;
pub(crate) use publisher::SimPublisher;
pub(crate) use webhook::Webhook;
