//! Why no node answered: keeps the most helpful of several causes for the error message.

use std::fmt;
use std::time::{Duration, Instant};

use super::connections::{NoAnswer, Tells};

/// The causes seen so far.
#[derive(Debug, Default)]
pub(super) struct Causes {
    /// The most helpful cause with its address, and how helpful it is.
    most: Option<(Tells, String)>,
    refused_since: Option<Instant>,
}

impl Causes {
    /// Adds a cause. It replaces an earlier one that is not more helpful.
    pub(super) fn add(&mut self, address: impl fmt::Display, error: &NoAnswer) {
        let tells = error.tells();
        if tells == Tells::Refusal {
            self.refused_since.get_or_insert_with(Instant::now);
        }
        if self.most.as_ref().is_none_or(|(most, _)| *most <= tells) {
            self.most = Some((tells, format!("{address}: {error}")));
        }
    }

    /// The refusal, if the first one came at least `time` ago.
    pub(super) fn refused_for(&self, time: Duration) -> Option<&str> {
        let lasts = self.refused_since.is_some_and(|since| since.elapsed() >= time);
        self.most.as_ref().filter(|_| lasts).map(|(_, cause)| cause.as_str())
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.most {
            Some((_, cause)) => f.write_str(cause),
            None => f.write_str("no address to try"),
        }
    }
}

#[cfg(test)]
mod tests {
    use cortado_transport::ConnectError;

    use super::*;

    #[test]
    fn a_refusal_tells_more_than_a_node_that_is_down() {
        let mut causes = Causes::default();
        assert_eq!(causes.to_string(), "no address to try");
        causes.add("a:1", &NoAnswer::silence("no answer within 1.0 s"));
        assert_eq!(causes.to_string(), "a:1: no answer within 1.0 s");
        assert_eq!(causes.refused_for(Duration::ZERO), None);
        let expired = quinn::TransportErrorCode::crypto(45);
        let refused = quinn::ConnectionError::ConnectionClosed(quinn::ConnectionClose {
            error_code: expired,
            frame_type: None,
            reason: Default::default(),
        });
        causes.add("b:2", &ConnectError::from(refused).into());
        causes.add("a:1", &NoAnswer::silence("no answer within 1.0 s"));
        causes.add("c", &NoAnswer::new("the name is unknown"));
        let refusal = causes.refused_for(Duration::ZERO).unwrap().to_owned();
        assert!(refusal.starts_with("b:2: ") && refusal.contains("not valid"), "{refusal}");
        assert_eq!(causes.to_string(), refusal);
        assert_eq!(causes.refused_for(Duration::from_secs(60)), None);
    }
}
