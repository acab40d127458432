//! Values that come again and again, each of which is kept once.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Texts, each of which is kept once.
pub type Texts = Interned<str>;

/// Values in the order in which they first came; a value's number is its place.
#[derive(Debug)]
pub struct Interned<T: ?Sized> {
    all: Vec<Arc<T>>,
    numbers: BTreeMap<Arc<T>, u32>,
}

impl<T: ?Sized> Default for Interned<T> {
    fn default() -> Self {
        Self { all: Vec::new(), numbers: BTreeMap::new() }
    }
}

impl<T: Ord + ?Sized> Interned<T> {
    /// The number of a value.
    pub fn number<'v>(&mut self, value: &'v T) -> u32
    where
        Arc<T>: From<&'v T>,
    {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let (value, number): (Arc<T>, _) = (value.into(), self.all.len() as u32);
        self.all.push(Arc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    /// The value with a number that [`Interned::number`] gave.
    #[must_use]
    pub fn value(&self, number: u32) -> &T {
        &self.all[number as usize]
    }

    /// All values, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.all.iter().map(|value| &**value)
    }
}
