//! The feeds that somebody reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use cortado_protocol::JobId;

use super::feed::Feed;
use crate::clients::Inside;
use crate::lock::lock;

/// Feeds by stream and output. A feed ends when nobody has read it for a while.
#[derive(Default)]
pub(super) struct Feeds(Mutex<BTreeMap<(JobId, String), Weak<Feed>>>);

impl Feeds {
    /// The feed of an output.
    pub(super) fn of(&self, inside: &Inside, job: JobId, output: &str) -> Arc<Feed> {
        let mut all = lock(&self.0);
        all.retain(|_, feed| feed.strong_count() > 0);
        let key = (job, output.to_owned());
        let feed = all.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let feed = Feed::start(inside.clone(), job, output.to_owned());
            all.insert(key, Arc::downgrade(&feed));
            feed
        });
        feed.touch();
        feed
    }
}
