//! Texts that come again and again, each of which is kept once.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Texts in the order in which they first came; a text's number is its place.
#[derive(Debug, Default)]
pub struct Texts {
    all: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, u32>,
}

impl Texts {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let (text, number): (Arc<str>, _) = (text.into(), self.all.len() as u32);
        self.all.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// The text with a number that [`Texts::number`] gave.
    #[must_use]
    pub fn text(&self, number: u32) -> &str {
        &self.all[number as usize]
    }

    /// All texts, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|text| &**text)
    }
}
