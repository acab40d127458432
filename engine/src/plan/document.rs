//! A TOML document that knows its lines: every error names the line, what is wrong and what was
//! expected. The plan's parser reads plans through it.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a text is not a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PlanError {
    /// Line in the plan's text, counted from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// Turns byte offsets into lines.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a>(pub(crate) &'a str);

impl Source<'_> {
    pub(crate) fn error(self, offset: usize, message: impl Into<String>) -> PlanError {
        let before = &self.0.as_bytes()[..offset.min(self.0.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        PlanError { line, message: message.into() }
    }
}

/// A text of the document and its offset.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) text: String,
    pub(crate) offset: usize,
}

/// A value of the document, and its name in error messages.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    source: Source<'a>,
    name: String,
    value: &'a Spanned<DeValue<'a>>,
}

/// A table of the document.
pub(crate) struct Table<'a> {
    source: Source<'a>,
    name: String,
    pub(crate) offset: usize,
    entries: Vec<(Located, Value<'a>)>,
}

impl<'a> Table<'a> {
    pub(crate) fn root(source: Source<'a>, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(source, "the plan".to_owned(), 0, document.get_ref())
    }

    fn new(source: Source<'a>, name: String, offset: usize, table: &'a DeTable<'a>) -> Self {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let key_text = key.get_ref().to_string();
                let name = format!("'{key_text}' of {name}");
                let located = Located { text: key_text, offset: key.span().start };
                (located, Value { source, name, value })
            })
            .collect();
        // Entries in the order of the text, whatever map the parser uses.
        entries.sort_by_key(|(key, _)| key.offset);
        Self { source, name, offset, entries }
    }

    /// Refuses keys that are not among `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), PlanError> {
        match self.entries.iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
            None => Ok(()),
            Some((key, _)) => Err(self.source.error(
                key.offset,
                format!(
                    "{} has no key '{}'; expected one of: {}",
                    self.name,
                    key.text,
                    known.join(", ")
                ),
            )),
        }
    }

    pub(crate) fn optional(&self, key: &str) -> Option<Value<'a>> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, value)| value.clone())
    }

    pub(crate) fn required(&self, key: &str) -> Result<Value<'a>, PlanError> {
        self.optional(key).ok_or_else(|| {
            self.source.error(self.offset, format!("{} lacks the key '{key}'", self.name))
        })
    }

    /// Keys and values in the order of the text.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Located, &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

impl<'a> Value<'a> {
    pub(crate) fn offset(&self) -> usize {
        self.value.span().start
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> PlanError {
        self.source.error(self.offset(), message)
    }

    fn expected(&self, what: &str) -> PlanError {
        self.error(format!("{} must be {what}", self.name))
    }

    pub(crate) fn text(&self) -> Result<Located, PlanError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(Located { text: text.to_string(), offset: self.offset() }),
            _ => Err(self.expected("a string")),
        }
    }

    pub(crate) fn count(&self) -> Result<u64, PlanError> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        number.filter(|n| *n > 0).ok_or_else(|| self.expected("a whole number above 0"))
    }

    pub(crate) fn table(&self) -> Result<Table<'a>, PlanError> {
        match self.value.get_ref() {
            DeValue::Table(table) => {
                Ok(Table::new(self.source, self.name.clone(), self.offset(), table))
            }
            _ => Err(self.expected("a table")),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Value<'a>>, PlanError> {
        match self.value.get_ref() {
            DeValue::Array(values) => Ok(values
                .iter()
                .enumerate()
                .map(|(at, value)| Value {
                    source: self.source,
                    name: format!("entry {} of {}", at + 1, self.name),
                    value,
                })
                .collect()),
            _ => Err(self.expected("a list")),
        }
    }

    /// A list of strings; a single string counts as a list of one.
    pub(crate) fn texts(&self) -> Result<Vec<Located>, PlanError> {
        match self.value.get_ref() {
            DeValue::String(_) => Ok(vec![self.text()?]),
            _ => self.list()?.iter().map(Value::text).collect(),
        }
    }
}
