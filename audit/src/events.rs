//! Events: which of them count, and in which metrics.

use std::collections::HashMap;

use cortado_protocol::Edge;
use cortado_protocol::stream::{Place, Publisher, StoredEvent};
use cortado_stream::{Cut, NotValid, StreamPlan, metric_ids, time_text};
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, Statement, Transaction, params, params_from_iter};
use serde_json::Value;

use crate::error::AuditError;
use crate::file::{AuditFile, columns};

/// The event counts.
pub(crate) const COUNTED: &str = "counted";
/// An equal one counts.
pub(crate) const DUPLICATE: &str = "duplicate";
/// One with the same id and other content counts.
const CONFLICT: &str = "conflict";

impl AuditFile {
    /// How many batches of each publisher's edge the file has the events of.
    ///
    /// # Errors
    /// If SQLite can't read the file.
    pub fn read_so_far(&self) -> Result<Cut, AuditError> {
        let all = "SELECT publisher, generation, next_batch FROM publishers";
        let mut statement = self.sql(self.db.prepare(all))?;
        let rows = statement.query_map([], |row| {
            let edge = Edge::publisher(&row.get::<_, String>(0)?, row.get(1)?);
            Ok((edge, row.get::<_, u64>(2)?))
        });
        self.sql(self.sql(rows)?.collect())
    }

    /// Adds the events of a publisher's batches, of which `next` is the first one that comes after them.
    ///
    /// # Errors
    /// If SQLite can't write the file, or an event is not what the plan says: then nothing was added.
    pub fn add_events(
        &mut self,
        publisher: &Publisher,
        events: &[StoredEvent],
        next: u64,
    ) -> Result<(), AuditError> {
        let Self { db, path, plan, metrics } = self;
        let failed = |source| AuditError::Sqlite { path: path.clone(), source };
        // What a transaction that fails has added to the numbers of metrics is not in the file.
        let mut known = metrics.clone();
        let transaction = db.transaction().map_err(failed)?;
        let mut adding = Adding::new(&transaction, plan).map_err(failed)?;
        for event in events {
            let json: Value = serde_json::from_slice(&event.raw).map_err(|error| {
                let (batch, position) = (event.batch, event.position);
                let place = Place { edge: publisher.edge(), batch, position }.to_text();
                NotValid { place, why: error.to_string() }
            })?;
            adding.add(publisher, event, &json, &mut known).map_err(failed)?;
        }
        drop(adding);
        let of = params![publisher.name, publisher.generation, next];
        let put = "INSERT OR REPLACE INTO publishers VALUES (?1, ?2, ?3)";
        transaction.execute(put, of).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        *metrics = known;
        Ok(())
    }
}

/// The statements of a transaction.
struct Adding<'t> {
    plan: &'t StreamPlan,
    known: Statement<'t>,
    counts: Statement<'t>,
    earliest: Statement<'t>,
    before: Statement<'t>,
    demote: Statement<'t>,
    contradict: Statement<'t>,
    contradict_later: Statement<'t>,
    insert: Statement<'t>,
    name: Statement<'t>,
    contribute: Statement<'t>,
}

/// Where an event stands among those with its id: its time, and its place.
type Origin = (i64, Place);

impl<'t> Adding<'t> {
    fn new(db: &'t Transaction<'_>, plan: &'t StreamPlan) -> rusqlite::Result<Self> {
        let columns = columns(plan.audit_columns());
        let values = ", ?".repeat(plan.audit_columns().len());
        Ok(Self {
            plan,
            known: db.prepare("SELECT 1 FROM events_in WHERE event_id = ?1 LIMIT 1")?,
            counts: db.prepare(
                "SELECT publisher, generation, batch, position, at_ms, content FROM events_in
                 WHERE event_id = ?1 AND window_ms = ?2 AND contribution_type = 'counted'",
            )?,
            earliest: db.prepare(
                "SELECT min(at_ms) FROM events_in WHERE event_id = ?1 AND window_ms = ?2",
            )?,
            before: db.prepare(
                "SELECT 1 FROM events_in WHERE event_id = ?1 AND at_ms >= ?2 AND at_ms < ?3 LIMIT 1",
            )?,
            demote: db.prepare(
                "UPDATE events_in SET contribution_type = iif(content = ?3, 'duplicate', 'conflict')
                 WHERE event_id = ?1 AND window_ms = ?2",
            )?,
            contradict: db.prepare(
                "UPDATE events_in SET contribution_type = 'conflict'
                 WHERE event_id = ?1 AND window_ms = ?2",
            )?,
            contradict_later: db.prepare(
                "UPDATE events_in SET contribution_type = 'conflict'
                 WHERE event_id = ?1 AND window_ms IN (SELECT window_ms FROM events_in
                     WHERE event_id = ?1 AND at_ms >= ?2 AND at_ms <= ?3
                     AND contribution_type = 'counted')",
            )?,
            insert: db.prepare(&format!(
                "INSERT INTO events_in (event_id, timestamp, payload_json, publisher, batch, position, \
                 generation, contribution_type, window_ms, at_ms, {columns} content)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?{values}, ?)"
            ))?,
            name: db.prepare(
                "INSERT INTO metric_names (metric_id) VALUES (?1)
                 ON CONFLICT DO UPDATE SET metric_id = metric_id RETURNING metric",
            )?,
            contribute: db.prepare("INSERT INTO event_metrics VALUES (?1, ?2)")?,
        })
    }

    /// Whether an event counts, and what that changes for others with its id: the first one counts, by time
    /// and place, and those that follow closely do not (see [`cortado_stream::WindowFold`]).
    fn kind(&mut self, id: &str, origin: Origin, content: i64) -> rusqlite::Result<&'static str> {
        if !self.known.exists(params![id])? {
            return Ok(COUNTED);
        }
        let (at_ms, horizon) = (origin.0, self.plan.horizon_ms());
        let window = self.plan.span_of(at_ms, at_ms);
        let latest = at_ms.saturating_add(horizon);
        self.contradict_later.execute(params![id, window.end, latest])?;
        let counts = self.counts.query_row(params![id, window.start], |row| {
            let (name, generation): (String, u32) = (row.get(0)?, row.get(1)?);
            let (batch, position) = (row.get(2)?, row.get(3)?);
            let place = Place { edge: Edge::publisher(&name, generation), batch, position };
            Ok(((row.get::<_, i64>(4)?, place), row.get::<_, i64>(5)?))
        });
        let counts = counts.optional()?;
        let earliest =
            self.earliest.query_row(params![id, window.start], |row| row.get::<_, Option<i64>>(0));
        let first_ms = earliest?.unwrap_or(at_ms).min(at_ms);
        let from = first_ms.saturating_sub(horizon);
        if self.before.exists(params![id, from, window.start])? {
            if counts.is_some() {
                self.contradict.execute(params![id, window.start])?;
            }
            return Ok(CONFLICT);
        }
        Ok(match counts {
            None => COUNTED,
            Some((other, _)) if origin < other => {
                self.demote.execute(params![id, window.start, content])?;
                COUNTED
            }
            Some((_, of)) if of == content => DUPLICATE,
            Some(_) => CONFLICT,
        })
    }

    fn add(
        &mut self,
        publisher: &Publisher,
        event: &StoredEvent,
        json: &Value,
        metrics: &mut HashMap<String, i64>,
    ) -> rusqlite::Result<()> {
        let StoredEvent { batch, position, at_ms, id, content, raw } = event;
        let (window_ms, content) = (self.plan.window_start(*at_ms), *content as i64);
        let place = Place { edge: publisher.edge(), batch: *batch, position: *position };
        let kind = self.kind(id, (*at_ms, place), content)?;
        let payload = match self.plan.audit_payload() {
            Some(field) => json.get(field).unwrap_or(&Value::Null).to_string(),
            None => String::from_utf8_lossy(raw).into_owned(),
        };
        let first: [Sql; 10] = [
            id.clone().into(),
            time_text(*at_ms).into(),
            payload.into(),
            publisher.name.clone().into(),
            (*batch as i64).into(),
            (*position).into(),
            publisher.generation.into(),
            kind.to_owned().into(),
            window_ms.into(),
            (*at_ms).into(),
        ];
        let columns = self.plan.audit_columns().iter().map(|name| sql_of(json.get(name)));
        let values = first.into_iter().chain(columns).chain([content.into()]);
        let number = self.insert.insert(params_from_iter(values))?;
        for metric in metric_ids(self.plan, json, *at_ms) {
            let of = match metrics.get(&metric) {
                Some(of) => *of,
                None => {
                    let of = self.name.query_row(params![metric], |row| row.get(0))?;
                    metrics.insert(metric, of);
                    of
                }
            };
            self.contribute.execute(params![of, number])?;
        }
        Ok(())
    }
}

/// The value of a column.
pub(crate) fn sql_of(value: Option<&Value>) -> Sql {
    match value {
        None | Some(Value::Null) => Sql::Null,
        Some(Value::Bool(truth)) => i64::from(*truth).into(),
        Some(Value::String(text)) => text.clone().into(),
        Some(number @ Value::Number(of)) => match (of.as_i64(), of.as_f64()) {
            (Some(int), _) => int.into(),
            (None, Some(float)) => float.into(),
            (None, None) => number.to_string().into(),
        },
        Some(other) => other.to_string().into(),
    }
}
