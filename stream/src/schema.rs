//! Schema sets: the JSON Schemas that a stream's events are validated with.

use std::collections::BTreeMap;

use cortado_protocol::stream::SchemaFile;
use jsonschema::{Draft, Validator};
use serde_json::Value;

use crate::plan::{Payload, Piece, StreamPlan};

/// Most bytes of all files of a set.
const SET_BYTES: usize = 1 << 20;

/// Why a schema set can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {message}")]
pub struct SchemaError {
    /// The file that is wrong.
    pub file: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// A compiled schema set.
#[derive(Debug)]
pub struct SchemaSet {
    schemas: BTreeMap<String, Validator>,
}

/// Why an event is not valid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) reason: String,
    /// Where in the event: a JSON Pointer (RFC 6901).
    pub(crate) path: String,
}

impl SchemaSet {
    /// Compiles a schema set. Formats are asserted; nothing is fetched from anywhere.
    ///
    /// # Errors
    /// If a file is not a JSON Schema of draft 2020-12, or the plan names one that is missing.
    pub fn compile(plan: &StreamPlan, files: &[SchemaFile]) -> Result<Self, SchemaError> {
        let error = |file: &str, message: String| SchemaError { file: file.to_owned(), message };
        if files.iter().map(|file| file.text.len()).sum::<usize>() > SET_BYTES {
            let message = format!("all schemas together have at most {SET_BYTES} bytes");
            return Err(error("schemas", message));
        }
        let mut schemas = BTreeMap::new();
        for SchemaFile { name, text } in files {
            let wrong = |message: String| error(name, message);
            let schema: Value = serde_json::from_str(text)
                .map_err(|problem| wrong(format!("not JSON: {problem}")))?;
            let validator = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true)
                .build(&schema)
                .map_err(|problem| wrong(format!("not a JSON Schema: {problem}")))?;
            if schemas.insert(name.clone(), validator).is_some() {
                return Err(wrong("there are two files of this name".to_owned()));
            }
        }
        if let Some(envelope) = plan.envelope().filter(|name| !schemas.contains_key(*name)) {
            return Err(error(envelope, "the plan names it as the envelope: it is missing".into()));
        }
        Ok(Self { schemas })
    }

    /// Checks an event.
    pub(crate) fn check(&self, plan: &StreamPlan, event: &Value) -> Result<(), Invalid> {
        if let Some(name) = plan.envelope() {
            self.validate(name, event, "")?;
        }
        if let Some(payload) = plan.payload() {
            let file = file_of(payload, event)?;
            let field = &payload.field;
            let part = event.get(field).ok_or_else(|| Invalid {
                reason: format!("the field '{field}' is missing"),
                path: String::new(),
            })?;
            self.validate(&file, part, &format!("/{field}"))?;
        }
        Ok(())
    }

    fn validate(&self, file: &str, part: &Value, at: &str) -> Result<(), Invalid> {
        let Some(schema) = self.schemas.get(file) else {
            return Err(Invalid { reason: format!("there is no schema {file}"), path: at.into() });
        };
        schema.validate(part).map_err(|error| {
            let path = format!("{at}{}", error.instance_path());
            // The message repeats the value, which may be long.
            let reason = error.to_string().chars().take(REASON_CHARS).collect();
            Invalid { reason, path }
        })
    }
}

/// Most characters of a reason.
const REASON_CHARS: usize = 300;

/// The name of the schema file of an event's payload.
fn file_of(payload: &Payload, event: &Value) -> Result<String, Invalid> {
    let mut name = String::new();
    for piece in &payload.file {
        match piece {
            Piece::Text(text) => name.push_str(text),
            Piece::Field(field) => match event.get(field).and_then(Value::as_str) {
                Some(text) => name.push_str(text),
                None => {
                    let reason = format!("the field '{field}' is missing or no text");
                    return Err(Invalid { reason, path: format!("/{field}") });
                }
            },
        }
    }
    // A part of an event may be long.
    Ok(name.chars().take(REASON_CHARS).collect())
}

#[cfg(test)]
mod tests;
