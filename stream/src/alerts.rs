//! Alerts: counts of a window that are far above those of the windows before it.
//!
//! A count is compared with what the windows before it predict. They had the sum *s* in *n* windows. If
//! each count is Poisson with one unknown rate, and nothing else is known of the rate (Jeffreys'
//! prior), the next count is negative binomial with *r* = *s* + 1/2 and *p* = *n* / (*n* + 1)
//! (Gelman and others, "Bayesian Data Analysis", third edition, §2.6). This suits low counts: a mean and
//! a standard deviation of few small numbers say little of how likely a larger one is, and after
//! windows without any event the deviation is 0. The uncertainty of the rate is part of the
//! prediction, so a short history makes alerts rarer, not more frequent.
//!
//! Only additions, multiplications and divisions are made, in one order: all machines get the same
//! bits.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cut::Cut;
use crate::plan::{AlertRule, StreamPlan, WindowKey};
use crate::rows::window_head;
use crate::time::time_text;

/// What was published last of a window near those of the round.
#[derive(Clone, Debug)]
pub struct Recent {
    /// The window.
    pub key: WindowKey,
    /// The revision of its row.
    pub revision: u64,
    /// Its counts, by the texts that it is grouped by.
    pub counts: Vec<(Vec<String>, u64)>,
    /// The groups of which there was an alert: numbers in the plan's order of alerts, and texts.
    pub alerts: Vec<(u16, Vec<String>)>,
}

/// The counts of a window.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) revision: u64,
    pub(crate) by_group: BTreeMap<Vec<String>, u64>,
}

/// An alert, or one that is withdrawn: its output, its row, its group.
pub(crate) struct Alert {
    pub(crate) output: String,
    pub(crate) row: Map<String, Value>,
    pub(crate) group: Vec<String>,
    /// The number of its rule among those of the window.
    pub(crate) rule: u16,
    pub(crate) raised: bool,
}

/// The alerts of a window. `all` has its counts and those of the windows before it, as far as its rules look
/// back; `first_ms` is where the stream's first window of this kind starts; `before` are the alerts
/// when the window was published last.
pub(crate) fn alerts(
    plan: &StreamPlan,
    cut: &Cut,
    (key, first_ms): (WindowKey, i64),
    all: &BTreeMap<WindowKey, Counts>,
    before: &[(u16, Vec<String>)],
) -> Vec<Alert> {
    let mut found = Vec::new();
    let Some(own) = all.get(&key) else { return found };
    for (number, rule) in (0..).zip(plan.alerts_of(key.0)) {
        let history = History::of(plan, (key, first_ms), rule, all);
        let was = |group: &Vec<String>| before.contains(&(number, group.clone()));
        let gone =
            before.iter().filter(|(of, group)| *of == number && !own.by_group.contains_key(group));
        let gone = gone.map(|(_, group)| (group, 0));
        for (group, count) in own.by_group.iter().map(|(group, n)| (group, *n)).chain(gone) {
            let sum = history.sums.get(group).copied().unwrap_or(0);
            // At least one window: a rule's least is 1 or more.
            let enough = history.windows >= u64::from(rule.least);
            let probability = if enough { chance_of(count, sum, history.windows) } else { 1.0 };
            let raised = count > 0 && probability <= rule.probability;
            if !raised && !was(group) {
                continue;
            }
            let window = &plan.windows()[usize::from(key.0)];
            let mut row = window_head(window, key.1, cut);
            let id = format!("{}/{}/{}", rule.output, time_text(key.1), group.join("/"));
            row.insert("alert_id".into(), id.into());
            row.insert("state".into(), if raised { "raised" } else { "withdrawn" }.into());
            for (field, text) in window.group_by.iter().zip(group) {
                let name = field.last().cloned().unwrap_or_default();
                row.insert(name, text.as_str().into());
            }
            row.insert("count".into(), count.into());
            row.insert("history".into(), history.json(sum));
            row.insert("probability".into(), json!(probability));
            row.insert("threshold".into(), json!(rule.probability));
            let (output, group) = (rule.output.clone(), group.clone());
            found.push(Alert { output, row, group, rule: number, raised });
        }
    }
    found
}

/// The windows before one.
struct History {
    /// Their number, windows without events among them.
    windows: u64,
    sums: BTreeMap<Vec<String>, u64>,
    /// Start and revision of those with events.
    revisions: Vec<(i64, u64)>,
}

impl History {
    fn of(
        plan: &StreamPlan,
        (key, first_ms): (WindowKey, i64),
        rule: &AlertRule,
        all: &BTreeMap<WindowKey, Counts>,
    ) -> Self {
        let from = plan.before(key, rule.history);
        let every = plan.windows()[usize::from(key.0)].every_ms;
        // A window without events has no counts, and is one of them all the same.
        let windows = (key.1.saturating_sub(first_ms).max(0) / every).unsigned_abs();
        let windows = windows.min(u64::from(rule.history));
        let mut history = Self { windows, sums: BTreeMap::new(), revisions: Vec::new() };
        for (of, counts) in all.range(from..key) {
            history.revisions.push((of.1, counts.revision));
            for (group, count) in &counts.by_group {
                *history.sums.entry(group.clone()).or_default() += count;
            }
        }
        history
    }

    fn json(&self, sum: u64) -> Value {
        let revision = |(start, revision): &(i64, u64)| json!([time_text(*start), revision]);
        let revisions: Vec<_> = self.revisions.iter().map(revision).collect();
        json!({ "windows": self.windows, "sum": sum, "revisions": revisions })
    }
}

/// Weights below this share of the largest one are left out.
const NEGLIGIBLE: f64 = 1e-30;

/// How likely a count of at least `count` is after a history of `windows` windows, one or more, with `sum`
/// events.
fn chance_of(count: u64, sum: u64, windows: u64) -> f64 {
    let r = sum as f64 + 0.5;
    let q = 1.0 / (windows as f64 + 1.0);
    // The weight of k + 1 is that of k times this.
    let step = |k: f64| (k + r) / (k + 1.0) * q;
    let mode = ((r - 1.0).max(0.0) * q / (1.0 - q)).floor();
    let mode = if mode.is_finite() { mode } else { 0.0 };
    let (mut all, mut tail) = (0.0, 0.0);
    let mut take = |k: f64, weight: f64| {
        all += weight;
        if k >= count as f64 {
            tail += weight;
        }
        weight > NEGLIGIBLE
    };
    let (mut k, mut weight) = (mode, 1.0);
    while take(k, weight) {
        weight *= step(k);
        k += 1.0;
    }
    let (mut k, mut weight) = (mode, 1.0);
    while k >= 1.0 {
        k -= 1.0;
        weight /= step(k);
        if !take(k, weight) {
            break;
        }
    }
    (tail / all).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Count, sum and windows before it, and the chance, computed with 60 digits.
    const EXPECTED: [(u64, u64, u64, f64); 9] = [
        (1, 0, 60, 0.00823059263907057),
        (2, 0, 12, 0.00227842629138017),
        (6, 0, 60, 4.40967508087322e-12),
        (5, 60, 60, 0.00418731690828152),
        (7, 60, 60, 0.000111554388121632),
        (12, 200, 60, 0.000225956049695848),
        (60, 1200, 60, 8.16248823022114e-13),
        (400, 20000, 60, 0.000240590844671137),
        (3, 2, 1, 0.40890292510187),
    ];

    #[test]
    fn chances_are_those_of_the_negative_binomial_distribution() {
        for (count, sum, windows, expected) in EXPECTED {
            let chance = chance_of(count, sum, windows);
            assert!((chance / expected - 1.0).abs() < 1e-9, "{count} {sum} {windows}: {chance}");
        }
        assert_eq!(chance_of(0, 7, 3), 1.0);
        assert_eq!(chance_of(1_000_000, 60, 60), 0.0);
    }

    /// Poisson counts by inversion, from a generator that is good enough for it.
    struct Poisson {
        state: u64,
        rate: f64,
    }

    impl Iterator for Poisson {
        type Item = u64;

        fn next(&mut self) -> Option<u64> {
            let (mut count, mut left) = (0, self.rate);
            loop {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                let share = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
                left += share.max(f64::MIN_POSITIVE).ln();
                if left < 0.0 {
                    return Some(count);
                }
                count += 1;
            }
        }
    }

    #[test]
    fn quiet_data_give_fewer_alerts_than_the_plan_says() {
        let probability = 0.0001;
        for (rate, history) in [(0.02, 60), (0.5, 60), (5.0, 60), (40.0, 60), (0.5, 12), (5.0, 12)]
        {
            let counts: Vec<_> = Poisson { state: 7, rate }.take(100_000 + history).collect();
            let alerts = counts.windows(history + 1).filter(|window| {
                let (count, before) = (window[history], &window[..history]);
                let chance = chance_of(count, before.iter().sum(), history as u64);
                count > 0 && chance <= probability
            });
            let alerts = alerts.count() as f64;
            assert!(alerts <= 100_000.0 * probability, "rate {rate}, {history}: {alerts} alerts");
        }
    }

    #[test]
    fn a_burst_is_an_alert() {
        // Three times as much as before, and a first event after an hour of none.
        assert!(chance_of(60, 1_200, 60) < 1e-9);
        assert!(chance_of(3, 0, 60) < 0.0001);
        assert!(chance_of(1, 0, 60) > 0.001);
    }
}
