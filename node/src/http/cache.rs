//! Answers that are given to everybody who asks within half a second: many pages cost what one does. An
//! answer that is a little older is given, too, while the next one is made. One that takes long to make is
//! made more seldom, so that pages cost a tenth of the time at most.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cortado_protocol::job::JobStatus;
use cortado_stream::StreamPlan;
use serde_json::{Map, Value};

use super::answer::{Answer, Refused};
use crate::lock::lock;

/// How long an answer is good that may change.
pub(super) const SHORT: Duration = Duration::from_millis(500);
/// How long one is that does not change.
pub(super) const FOREVER: Duration = Duration::from_secs(600);
/// How old an answer may be that is given while the next one is made.
const STALE: Duration = Duration::from_secs(2);
/// An answer is good for so many times as long as it takes to make.
const SHARE: u32 = 10;
/// Questions whose answers are kept.
const KEPT: usize = 1024;

/// The last answer to a question.
struct Known<T> {
    at: Instant,
    took: Duration,
    answer: Result<T, Refused>,
}

/// What is known of one question.
struct Slot<T> {
    known: Mutex<Option<Known<T>>>,
    /// Who makes the next answer has it; others wait.
    making: tokio::sync::Mutex<()>,
}

/// Answers by question.
pub(super) struct Kept<T>(Mutex<HashMap<String, Arc<Slot<T>>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Slot<T> {
    /// The last answer, if it is not too old, and whether it is still good.
    fn last(&self, good_for: Duration) -> Option<(Result<T, Refused>, bool)> {
        let known = lock(&self.known);
        let Known { at, took, answer } = known.as_ref()?;
        // What went wrong is tried again soon.
        let good_for = if answer.is_ok() { good_for.max(*took * SHARE) } else { SHORT };
        let (age, usable) = (at.elapsed(), good_for + STALE);
        let usable = if answer.is_ok() { usable } else { good_for };
        (age < usable).then(|| (answer.clone(), age < good_for))
    }

    /// Makes the next answer, and keeps it.
    async fn make(&self, ask: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
        let began = Instant::now();
        let answer = ask.await;
        let known = Known { at: Instant::now(), took: began.elapsed(), answer: answer.clone() };
        *lock(&self.known) = Some(known);
        answer
    }
}

impl<T: Clone + Send + 'static> Kept<T> {
    /// The answer to a question, which is asked again if the last answer is old.
    pub(super) async fn get(
        &self,
        question: &str,
        good_for: Duration,
        ask: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let slot = self.slot(question);
        match slot.last(good_for) {
            Some((answer, true)) => return answer,
            Some((answer, false)) => {
                tokio::spawn(async move {
                    // Somebody makes it already, otherwise.
                    if let Ok(_making) = slot.making.try_lock() {
                        let _ = slot.make(ask).await;
                    }
                });
                return answer;
            }
            None => {}
        }
        let _making = slot.making.lock().await;
        if let Some((answer, true)) = slot.last(good_for) {
            return answer;
        }
        slot.make(ask).await
    }

    fn slot(&self, question: &str) -> Arc<Slot<T>> {
        let mut all = lock(&self.0);
        if all.len() >= KEPT {
            all.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.last(STALE).is_some());
        }
        if all.len() >= KEPT {
            all.clear();
        }
        let new =
            || Arc::new(Slot { known: Mutex::new(None), making: tokio::sync::Mutex::new(()) });
        Arc::clone(all.entry(question.to_owned()).or_insert_with(new))
    }
}

/// What is kept.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) answers: Kept<Answer>,
    pub(super) jobs: Kept<Arc<Vec<JobStatus>>>,
    pub(super) plans: Kept<Arc<StreamPlan>>,
    pub(super) metrics: Kept<Arc<Vec<Map<String, Value>>>>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_at_the_same_time_costs_nothing_more() {
        let kept: Kept<u64> = Kept::default();
        let asked = Arc::new(AtomicU64::new(0));
        let ask = || {
            let asked = Arc::clone(&asked);
            async move {
                tokio::task::yield_now().await;
                Ok(asked.fetch_add(1, Ordering::Relaxed))
            }
        };
        let (a, b) = tokio::join!(kept.get("q", FOREVER, ask()), kept.get("q", FOREVER, ask()));
        assert_eq!((a.unwrap(), b.unwrap()), (0, 0));
        assert_eq!(kept.get("other", FOREVER, ask()).await.unwrap(), 1);
        // An old answer is given at once, and the next one is made: a while after one that took no time.
        let mut given = Vec::new();
        while asked.load(Ordering::Relaxed) < 3 {
            given.push(kept.get("q", Duration::ZERO, ask()).await.unwrap());
            tokio::task::yield_now().await;
        }
        assert!(given.iter().all(|answer| *answer == 0), "{given:?}");
        let failed = async { Err(Refused::bad("no")) };
        assert!(kept.get("bad", FOREVER, failed).await.is_err());
        assert!(kept.get("bad", FOREVER, ask()).await.is_err(), "for half a second");
    }
}
