//! Synthetic events of public safety of an invented country: the same events for the same options.
//!
//! Event `n` depends on the seed, the publisher's name and `n` only, and on the time at which the
//! publisher was opened. So a publisher that was killed makes the same batches again.

use std::fmt::Write as _;

use cortado_stream::time_text;

use super::Random;

/// What the events are like.
#[derive(Clone, Debug)]
pub struct EventOptions {
    /// Seed of the random numbers.
    pub seed: u64,
    /// The publisher's name.
    pub publisher: String,
    /// Time of the first event, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Events in a second of event time.
    pub rate: f64,
    /// Chance that an event is a copy of an earlier one.
    pub duplicates: f64,
    /// Chance that an event is not valid.
    pub invalid: f64,
    /// By how much an event may be older than the one before, in milliseconds.
    pub disorder_ms: i64,
    /// Bursts.
    pub bursts: Bursts,
}

/// Events that happen all at once, in one region and of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bursts {
    /// Chance that the next `size` events are a burst.
    pub probability: f64,
    /// Events of a burst.
    pub size: u64,
}

/// An event, as a line of JSON without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The line.
    pub line: String,
    /// Its time, in milliseconds since the Unix epoch; of an event that is not valid, the time it
    /// would have.
    pub at_ms: i64,
    /// Whether it is a copy of an earlier event.
    pub is_copy: bool,
    /// Whether it is valid.
    pub is_valid: bool,
}

const REGIONS: [&str; 5] = ["norte", "sur", "centro", "este", "oeste"];
/// Most of how far a copy lies behind its event.
const COPY_REACH: u64 = 500;

impl EventOptions {
    /// The time at which event `n` is published: those of a burst when its first one is.
    #[must_use]
    pub fn due_ms(&self, n: u64) -> i64 {
        let n = self.burst(n).map_or(n, |(first, _)| first);
        self.start_ms.saturating_add((n as f64 * 1_000.0 / self.rate) as i64)
    }

    /// No event from `n` on is older than this, in milliseconds since the Unix epoch: a copy has
    /// the time of its event.
    #[must_use]
    pub fn low_watermark_ms(&self, n: u64) -> i64 {
        let oldest = if self.duplicates > 0.0 { n.saturating_sub(COPY_REACH) } else { n };
        self.due_ms(oldest).saturating_sub(self.disorder_ms)
    }

    /// The first event of the burst that event `n` belongs to, if it does, and what is random in it.
    fn burst(&self, n: u64) -> Option<(u64, Random)> {
        let Bursts { probability, size } = self.bursts;
        let first = n - n.checked_rem(size)?;
        let mut random = self.random(first, "burst");
        chance(&mut random, probability).then_some((first, random))
    }

    /// Event `n`.
    #[must_use]
    pub fn event(&self, n: u64) -> Event {
        let mut random = self.random(n, "kind");
        if n > 0 && chance(&mut random, self.duplicates) {
            let earlier = n - 1 - random.below(n.min(COPY_REACH));
            return Event { is_copy: true, ..self.original(earlier) };
        }
        self.original(n)
    }

    fn random(&self, n: u64, what: &str) -> Random {
        Random::new(self.seed, &format!("{what} {} {n}", self.publisher))
    }

    fn original(&self, n: u64) -> Event {
        let mut random = self.random(n, "event");
        let disorder = random.below(self.disorder_ms.unsigned_abs() + 1) as i64;
        let at_ms = self.due_ms(n).saturating_sub(disorder);
        // The next generation of a publisher has other ids.
        let start = (self.start_ms as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = super::uuids::uuid_of(random.next_u64() ^ start, random.next_u64());
        let (mut region, mut kind) = (skewed(&mut random, REGIONS.len()), random.below(10));
        if let Some((_, mut random)) = self.burst(n) {
            (region, kind) = (skewed(&mut random, REGIONS.len()), random.below(10));
        }
        let region = REGIONS[region];
        let (source, payload) = payload(&mut random, kind, n);
        let mut line = String::with_capacity(400);
        let time = time_text(at_ms);
        write!(
            line,
            "{{\"event_id\":\"{id}\",\"timestamp\":\"{time}\",\"region\":\"{region}\",\
             \"source\":\"{source}\",\"schema_version\":\"1.0\",\"correlation_id\":\"c-{:x}\",\
             \"payload\":{payload}}}",
            random.next_u64()
        )
        .expect("a text takes everything");
        let is_valid = !chance(&mut random, self.invalid);
        if !is_valid {
            line = spoil(&mut random, &line, &time, region);
        }
        Event { line, at_ms, is_copy: false, is_valid }
    }
}

/// Makes an event invalid, in one of several ways.
fn spoil(random: &mut Random, line: &str, time: &str, region: &str) -> String {
    match random.below(6) {
        0 => line[..line.len() / 2].to_owned(),
        1 => line.replace(&format!("\"{region}\""), "\"atlantis\""),
        2 => line.replace("\"schema_version\":\"1.0\"", "\"schema_version\":\"9.9\""),
        3 => line.replace(time, "yesterday"),
        4 => line.replace("\"payload\":{", "\"payload\":{\"surplus\":true,"),
        _ => line.replace("\"event_id\":", "\"id\":"),
    }
}

fn payload(random: &mut Random, kind: u64, n: u64) -> (&'static str, String) {
    match kind {
        0..=5 => {
            let crime = pick(random, &["theft", "robbery", "assault", "fraud", "vandalism"]);
            let severity = ["low", "medium", "high"][skewed(random, 3)];
            let (latitude, longitude) = (degrees(random, 12), degrees(random, 7));
            let by = pick(random, &["citizen", "officer", "camera"]);
            let text = format!(
                "{{\"crime_type\":\"{crime}\",\"severity\":\"{severity}\",\"location\":{{\"latitude\":\
                 {latitude},\"longitude\":{longitude}}},\"reported_by\":\"{by}\"}}"
            );
            ("security.incident", text)
        }
        6..=7 => {
            let kind = pick(random, &["burglary", "theft", "threat", "fraud"]);
            let text = format!(
                "{{\"survey_id\":\"s-{n}\",\"respondent_age\":{},\"victimization_type\":\"{kind}\",\
                 \"incident_date\":\"2026-0{}-1{}\",\"reported\":{}}}",
                18 + random.below(70),
                1 + random.below(9),
                random.below(10),
                random.below(3) == 0
            );
            ("survey.victimization", text)
        }
        _ => {
            let kind = pick(random, &["asylum", "work", "study", "family"]);
            let status = pick(random, &["pending", "approved", "rejected", "in_review"]);
            let country = pick(random, &["Freedonia", "Sylvania", "Ruritania", "Graustark"]);
            let text = format!(
                "{{\"case_id\":\"m-{n}\",\"case_type\":\"{kind}\",\"status\":\"{status}\",\
                 \"origin_country\":\"{country}\",\"application_date\":\"2026-0{}-2{}\"}}",
                1 + random.below(9),
                random.below(9)
            );
            ("migration.case", text)
        }
    }
}

fn chance(random: &mut Random, chance: f64) -> bool {
    (random.below(1 << 30) as f64) < chance * f64::from(1 << 30)
}

fn pick<'t>(random: &mut Random, texts: &[&'t str]) -> &'t str {
    texts[random.below(texts.len() as u64) as usize]
}

/// A place in a list of which the first ones come more often.
fn skewed(random: &mut Random, len: usize) -> usize {
    random.below(len as u64).min(random.below(len as u64)) as usize
}

fn degrees(random: &mut Random, around: i64) -> String {
    format!("{around}.{:04}", random.below(10_000))
}

#[cfg(test)]
mod tests {
    use cortado_protocol::stream::{SchemaFile, StreamHeader};
    use cortado_stream::{EVENTS, EVENTS_SCHEMAS, SchemaSet, StreamPlan, Summary, map_events};

    use super::*;

    fn options() -> EventOptions {
        EventOptions {
            seed: 1,
            publisher: "p".into(),
            start_ms: 1_790_000_000_000,
            rate: 100.0,
            duplicates: 0.05,
            invalid: 0.05,
            disorder_ms: 2_000,
            bursts: Bursts::default(),
        }
    }

    #[test]
    fn valid_events_pass_the_schemas_and_the_others_do_not() {
        let plan = StreamPlan::parse(EVENTS).unwrap();
        let files =
            EVENTS_SCHEMAS.map(|(name, text)| SchemaFile { name: name.into(), text: text.into() });
        let schemas = SchemaSet::compile(&plan, &files).unwrap();
        let options = options();
        let header = StreamHeader {
            publisher: "p".into(),
            generation: 0,
            schema_set: 0,
            low_watermark_ms: 0,
            sent_at_ms: options.due_ms(3_000),
            last: false,
        };
        let (mut valid, mut copies, mut low) = (0, 0, i64::MAX);
        for n in (0..3_000).rev() {
            let event = options.event(n);
            let mapped = map_events(&plan, &schemas, 1, &header, event.line.as_bytes()).unwrap();
            let summary = Summary::decode(&mapped.deltas.last().unwrap().1).unwrap();
            assert_eq!(summary.valid == 1, event.is_valid, "{}: {:?}", event.line, summary.dead);
            valid += u32::from(event.is_valid);
            copies += u32::from(event.is_copy);
            low = low.min(event.at_ms);
            assert!(low >= options.low_watermark_ms(n), "{n}");
        }
        assert!((2_700..2_950).contains(&valid) && (100..220).contains(&copies));
    }

    #[test]
    fn a_burst_is_all_at_once_in_one_region_and_the_other_events_stay_as_they_are() {
        let calm = EventOptions { duplicates: 0.0, invalid: 0.0, disorder_ms: 0, ..options() };
        let bursts = Bursts { probability: 0.2, size: 50 };
        let options = EventOptions { bursts, ..calm.clone() };
        let region = |event: &Event| {
            let event: serde_json::Value = serde_json::from_str(&event.line).unwrap();
            (event["region"].to_string(), event["source"].to_string())
        };
        let mut found = 0;
        for first in (0..5_000).step_by(50) {
            let events: Vec<_> = (first..first + 50).map(|n| options.event(n)).collect();
            let one = events.iter().all(|event| event.at_ms == events[0].at_ms);
            if one {
                found += 1;
                assert!(events.iter().all(|event| region(event) == region(&events[0])));
                assert_eq!(options.due_ms(first + 49), options.due_ms(first));
                assert!(events[0].at_ms >= options.low_watermark_ms(first));
            } else {
                assert!((first..).zip(&events).all(|(n, event)| *event == calm.event(n)));
            }
        }
        assert!((10..35).contains(&found), "{found} bursts");
    }
}
