//! The layout of a file: which fields hold a table's columns.

use super::tables::TableSchema;

/// Why a header does not fit a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A needed column is missing.
    #[error("column '{column}' is missing; the header has: {}", found.join(", "))]
    Missing {
        /// The column.
        column: String,
        /// The columns of the header.
        found: Vec<String>,
    },
    /// A needed column occurs more than once.
    #[error("column '{0}' stands in the header twice")]
    Twice(String),
}

/// The fields of a file that hold a table's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of fields of every record.
    pub(crate) fields: usize,
    /// Pairs of field and column, in the order of fields.
    pub(crate) wanted: Vec<(usize, usize)>,
}

impl Layout {
    pub(super) fn bind(table: &TableSchema, header: &[String]) -> Result<Self, HeaderError> {
        let mut wanted = Vec::with_capacity(table.columns.len());
        let columns = if header.is_empty() { &[][..] } else { &table.columns[..] };
        for (index, column) in columns.iter().enumerate() {
            let mut places = (0..header.len()).filter(|at| header[*at] == column.name);
            let Some(place) = places.next() else {
                return Err(HeaderError::Missing {
                    column: column.name.clone(),
                    found: header.to_vec(),
                });
            };
            if places.next().is_some() {
                return Err(HeaderError::Twice(column.name.clone()));
            }
            wanted.push((place, index));
        }
        wanted.sort_unstable();
        Ok(Self { fields: header.len(), wanted })
    }
}
