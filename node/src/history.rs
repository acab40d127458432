//! The latest events of this node. The request `Log` of clients (`cortado log`) reads them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cortado_protocol::client::ClientResponse;
use cortado_protocol::event::{Event, Happening};
use cortado_protocol::limits::{EVENTS_KEPT, EVENTS_PER_ANSWER};
use tokio::sync::watch;

use crate::clock::unix_ms;

/// Longest wait for a new event.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// The events of one run of a node, the newest [`EVENTS_KEPT`] of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    boot: u64,
    kept: Arc<Mutex<VecDeque<Event>>>,
    /// Number of the newest event.
    newest: Arc<watch::Sender<u64>>,
    counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl History {
    /// Starts without events. `boot` (the generation) identifies this run of the node.
    #[must_use]
    pub fn new(boot: u64) -> Self {
        Self {
            boot,
            kept: Arc::default(),
            newest: Arc::new(watch::Sender::new(0)),
            counts: Arc::default(),
        }
    }

    /// Keeps an event and logs it.
    pub fn record(&self, what: Happening) {
        tracing::info!(event = what.name(), "{what}");
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what.name()).or_default() += 1;
        drop(counts);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(1, |event| event.number + 1);
        if kept.len() == EVENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Event { number, unix_ms: unix_ms(), what });
        self.newest.send_replace(number);
    }

    /// How often each kind of event was recorded.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events after a number, oldest first; all events if the number belongs to another run. If
    /// there is none, waits for one up to `wait` (5 s at most).
    pub async fn after(&self, boot: u64, number: u64, wait: Duration) -> ClientResponse {
        let number = if boot == self.boot { number } else { 0 };
        let mut newest = self.newest.subscribe();
        let news = newest.wait_for(|newest| *newest > number);
        // Neither a timeout nor the node's end changes the answer.
        let _ = tokio::time::timeout(wait.min(WAIT_LIMIT), news).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let events = kept.iter().filter(|event| event.number > number);
        let events = events.take(EVENTS_PER_ANSWER).cloned().collect();
        ClientResponse::Log { boot: self.boot, events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(number: usize) -> Happening {
        Happening::MemberDown(format!("node-{number}").parse().unwrap())
    }

    async fn numbers(history: &History, boot: u64, after: u64, wait: Duration) -> Vec<u64> {
        match history.after(boot, after, wait).await {
            ClientResponse::Log { boot: 7, events } => events.iter().map(|e| e.number).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_oldest_events_are_forgotten_and_none_is_told_twice() {
        let history = History::new(7);
        assert!(numbers(&history, 0, 0, Duration::ZERO).await.is_empty());
        (1..=EVENTS_KEPT + 10).for_each(|number| history.record(down(number)));
        let first = numbers(&history, 0, 0, Duration::ZERO).await;
        assert_eq!((first[0], first.len()), (11, EVENTS_PER_ANSWER));
        let newest = (EVENTS_KEPT + 10) as u64;
        assert_eq!(numbers(&history, 7, newest - 1, Duration::ZERO).await, [newest]);
        assert_eq!(numbers(&history, 6, newest, Duration::ZERO).await, first, "of another run");
    }

    #[tokio::test]
    async fn who_waits_is_told_at_once() {
        let history = History::new(7);
        let waiting = {
            let history = history.clone();
            tokio::spawn(async move { numbers(&history, 7, 0, Duration::from_secs(3600)).await })
        };
        history.record(down(1));
        assert_eq!(waiting.await.unwrap(), [1]);
    }
}
