//! The limit of rejected rows: `--max-rejects`.

use std::str::FromStr;

use cortado_engine::Receipt;
use cortado_protocol::JobId;

use crate::Error;

/// Most rejected rows: `100`, or a share of all rows such as `0.5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MaxRejects {
    /// A number of rows.
    Rows(u64),
    /// A share in percent.
    Percent(f64),
}

impl FromStr for MaxRejects {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("'{text}': expected a number of rows, or a share such as 0.5%");
        match text.strip_suffix('%') {
            Some(share) => {
                let percent: f64 = share.parse().map_err(|_| expected())?;
                let sensible = (0.0..=100.0).contains(&percent);
                if sensible { Ok(Self::Percent(percent)) } else { Err(expected()) }
            }
            None => text.parse().map(Self::Rows).map_err(|_| expected()),
        }
    }
}

/// A hint about rejected rows, if there are any.
pub(super) fn hint(receipt: &Receipt, job: JobId) -> Option<String> {
    let any = receipt.tables.iter().any(|table| table.rows_rejected > 0);
    any.then(|| format!("rejected rows were not counted; see them with: cortado rejects {job}"))
}

/// Checks that the rejected rows are within the limit. Without a limit, each table that is not
/// empty must have an accepted row.
pub(super) fn check(receipt: &Receipt, limit: Option<MaxRejects>, job: JobId) -> Result<(), Error> {
    let sum = |of: fn(&cortado_engine::TableReceipt) -> u64| -> u64 {
        receipt.tables.iter().map(of).fold(0, u64::saturating_add)
    };
    let (rows, rejected) = (sum(|table| table.rows_in), sum(|table| table.rows_rejected));
    let too_many = |limit: &str| {
        Err(Error::Ended(format!(
            "{rejected} of {rows} rows were rejected, more than {limit} (--max-rejects); see them \
             with: cortado rejects {job}"
        )))
    };
    match limit {
        Some(MaxRejects::Rows(most)) if rejected > most => too_many(&most.to_string()),
        Some(MaxRejects::Percent(most)) if rejected as f64 * 100.0 > rows as f64 * most => {
            too_many(&format!("{most}%"))
        }
        Some(_) => Ok(()),
        None => {
            let lost = |table: &&cortado_engine::TableReceipt| {
                table.rows_in > 0 && table.rows_accepted == 0
            };
            let Some(table) = receipt.tables.iter().find(lost) else { return Ok(()) };
            Err(Error::Ended(format!(
                "table {}: all {} rows were rejected; see why with: cortado rejects {job}. \
                 --max-rejects 100% allows it",
                table.name, table.rows_in
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_shares() {
        assert_eq!("7".parse(), Ok(MaxRejects::Rows(7)));
        assert_eq!("0.5%".parse(), Ok(MaxRejects::Percent(0.5)));
        for wrong in ["", "-1", "101%", "x", "%", "NaN%", "1.5"] {
            assert!(wrong.parse::<MaxRejects>().is_err(), "{wrong}");
        }
    }
}
