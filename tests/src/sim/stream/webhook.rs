//! A webhook.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

/// A webhook that takes most rows.
#[derive(Default)]
pub(crate) struct Webhook {
    /// Rows that were sent, by key.
    sent: BTreeMap<String, Sent>,
    /// The first broken promise.
    violation: Option<String>,
}

struct Sent {
    row: String,
    is_taken: bool,
    refused: u32,
}

/// Attempts for each row, in the plan.
pub(super) const ATTEMPTS: u32 = 3;

impl Webhook {
    /// Somebody sends a row.
    pub(crate) fn take(&mut self, rng: &mut StdRng, key: &str, row: &str) -> Result<(), String> {
        let new = || Sent { row: row.to_owned(), is_taken: false, refused: 0 };
        let sent = self.sent.entry(key.to_owned()).or_insert_with(new);
        if sent.row != row {
            self.violation = Some(format!("two rows have one key: {row} and {}", sent.row));
        }
        match rng.random_range(0..10) {
            kind @ 0..=6 => {
                sent.is_taken = true;
                // The answer may be lost.
                if kind == 0 { Err("no answer".to_owned()) } else { Ok(()) }
            }
            _ => {
                sent.refused += 1;
                Err("busy".to_owned())
            }
        }
    }

    /// Whether a row that was published was taken, or refused as often as the plan says.
    pub(crate) fn check(&self, output: &str, row: &str) -> Result<(), String> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        let key = cortado_stream::key_of(output, row).unwrap_or_default();
        match self.sent.get(&key) {
            Some(sent) if sent.is_taken || sent.refused >= ATTEMPTS => Ok(()),
            _ => Err(format!("a row was not delivered: {row}")),
        }
    }
}
