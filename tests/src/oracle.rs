//! The four coffee reports, computed row by row with plain code that shares nothing with the
//! engine: strings, maps and whole numbers of cents.

mod csv;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;

use csv::{Record, read_table};

/// The results expected from a cluster.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Report files and their bytes.
    pub reports: BTreeMap<&'static str, String>,
    /// Rows and rejected rows per table.
    pub rows: BTreeMap<&'static str, (u64, u64)>,
}

struct Sale {
    id: String,
    store: i64,
    user: Option<i64>,
    cents: i64,
    at: String,
}

struct Item {
    item: i64,
    quantity: i64,
    cents: i64,
    at: String,
}

/// Computes the reports of a dataset.
///
/// # Panics
/// If a file can't be read.
#[must_use]
pub fn coffee(data: &Path) -> Answer {
    let mut answer = Answer::default();
    let mut read = |table, parse: &mut dyn FnMut(&Record) -> Option<()>| {
        let (mut rows, mut rejected) = (0, 0);
        read_table(&data.join(table), |record| {
            rows += 1;
            if record.as_ref().and_then(&mut *parse).is_none() {
                rejected += 1;
            }
        });
        answer.rows.insert(table, (rows, rejected));
    };
    let (mut sales, mut items) = (Vec::new(), Vec::new());
    let (mut births, mut stores, mut menu) = (HashMap::new(), HashMap::new(), HashMap::new());
    read("transactions", &mut |r| {
        let user = match r.get("user_id") {
            "" => None,
            text => Some(whole(text)?),
        };
        let id = some_text(r.get("transaction_id"))?;
        let (store, cents) = (whole(r.get("store_id"))?, cents(r.get("final_amount"))?);
        sales.push(Sale { id, store, user, cents, at: time(r.get("created_at"))? });
        Some(())
    });
    read("transaction_items", &mut |r| {
        let (item, quantity) = (whole(r.get("item_id"))?, whole(r.get("quantity"))?);
        let cents = cents(r.get("subtotal"))?;
        items.push(Item { item, quantity, cents, at: time(r.get("created_at"))? });
        Some(())
    });
    read("users", &mut |r| {
        births.insert(whole(r.get("user_id"))?, r.get("birthdate").to_owned());
        Some(())
    });
    read("stores", &mut |r| {
        stores.insert(whole(r.get("store_id"))?, some_text(r.get("store_name"))?);
        Some(())
    });
    read("menu_items", &mut |r| {
        menu.insert(whole(r.get("item_id"))?, some_text(r.get("item_name"))?);
        Some(())
    });
    sales.retain(|sale| in_years(&sale.at));
    items.retain(|item| in_years(&item.at));
    let quantity = best_items(&items, &menu, |item| item.quantity, |sum| sum.to_string());
    let revenue = best_items(&items, &menu, |item| item.cents, amount);
    answer.reports.insert("q1.csv", large_sales(&sales));
    answer.reports.insert(
        "q2_quantity.csv",
        format!("year_month_created_at,item_name,sellings_qty\n{quantity}"),
    );
    answer
        .reports
        .insert("q2_revenue.csv", format!("year_month_created_at,item_name,profit_sum\n{revenue}"));
    answer.reports.insert("q3.csv", payments(&sales, &stores));
    answer.reports.insert("q4.csv", best_customers(&sales, &stores, &births));
    answer
}

fn large_sales(sales: &[Sale]) -> String {
    let mut rows: Vec<_> =
        sales.iter().filter(|sale| by_day(&sale.at) && sale.cents >= 7_500).collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows.iter().fold("transaction_id,final_amount\n".to_owned(), |mut text, sale| {
        let _ = writeln!(text, "{},{}", quoted(&sale.id), amount(sale.cents));
        text
    })
}

fn best_items(
    items: &[Item],
    menu: &HashMap<i64, String>,
    value: impl Fn(&Item) -> i64,
    show: impl Fn(i64) -> String,
) -> String {
    let mut months: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
    for item in items {
        *months.entry(&item.at[..7]).or_default().entry(item.item).or_default() += value(item);
    }
    let mut text = String::new();
    for (month, sums) in months {
        if let Some((item, sum)) = sums.into_iter().min_by_key(|(item, sum)| (Reverse(*sum), *item))
        {
            let name = menu.get(&item).map(String::as_str).unwrap_or_default();
            let _ = writeln!(text, "{month},{},{}", quoted(name), show(sum));
        }
    }
    text
}

fn payments(sales: &[Sale], stores: &HashMap<i64, String>) -> String {
    let mut sums: BTreeMap<(String, &str, i64), i64> = BTreeMap::new();
    for sale in sales.iter().filter(|sale| by_day(&sale.at)) {
        let half = if &sale.at[5..7] <= "06" { 1 } else { 2 };
        let half = format!("{}-H{half}", &sale.at[..4]);
        let name = stores.get(&sale.store).map(String::as_str).unwrap_or_default();
        *sums.entry((half, name, sale.store)).or_default() += sale.cents;
    }
    sums.iter().fold("year_half_created_at,store_name,tpv\n".to_owned(), |mut text, (key, sum)| {
        let _ = writeln!(text, "{},{},{}", key.0, quoted(key.1), amount(*sum));
        text
    })
}

fn best_customers(
    sales: &[Sale],
    stores: &HashMap<i64, String>,
    births: &HashMap<i64, String>,
) -> String {
    let mut counts: BTreeMap<i64, BTreeMap<i64, u64>> = BTreeMap::new();
    for sale in sales {
        if let Some(user) = sale.user {
            *counts.entry(sale.store).or_default().entry(user).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for (store, users) in counts {
        let mut users: Vec<_> = users.into_iter().map(|(user, n)| (Reverse(n), user)).collect();
        users.sort_unstable();
        let name = stores.get(&store).map(String::as_str).unwrap_or_default();
        rows.extend(users.into_iter().take(3).map(|(count, user)| (name, count, user)));
    }
    rows.sort_unstable();
    let header = "store_name,user_id,birthdate,purchases_qty\n".to_owned();
    rows.into_iter().fold(header, |mut text, (name, Reverse(count), user)| {
        let birth = births.get(&user).map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "{},{user},{birth},{count}", quoted(name));
        text
    })
}

/// The years of the reports.
fn in_years(at: &str) -> bool {
    at.starts_with("2024-") || at.starts_with("2025-")
}

fn by_day(at: &str) -> bool {
    ("06:00:00"..="23:00:00").contains(&&at[11..])
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A whole number, also written with `.0`.
fn whole(text: &str) -> Option<i64> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

/// An amount with at most two decimals.
fn cents(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (units, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if units.is_empty() || decimals.len() > 2 || !digits(units) || !digits(decimals) {
        return None;
    }
    let cents = units.parse::<i64>().ok()? * 100 + format!("{decimals:0<2}").parse::<i64>().ok()?;
    Some(if negative { -cents } else { cents })
}

fn amount(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

/// A time in the form of the exports.
fn time(text: &str) -> Option<String> {
    let shape = |(at, b): (usize, u8)| match at {
        4 | 7 => b == b'-',
        10 => b == b' ',
        13 | 16 => b == b':',
        _ => b.is_ascii_digit(),
    };
    (text.len() == 19 && text.bytes().enumerate().all(shape)).then(|| text.to_owned())
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_is_right_about_a_dataset_done_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "transactions/a.csv",
            "\u{feff}transaction_id,store_id,payment_method_id,voucher_id,user_id,original_amount,\
             discount_applied,final_amount,created_at\r\n\
             b,1,1,,7.0,80.0,0.0,80.0,2024-01-01 06:00:00\r\n\
             a,1,1,,7,75,0,75,2024-07-01 23:00:00\r\n\r\n\
             c,1,1,,,99,0,99,2024-07-01 23:00:01\r\n\
             d,1,1,,8,1,0,x,2024-07-01 12:00:00\r\n\
             e,1,1,,8,1,0\r\n\
             f,1,1,,8,9,0,9.25,2023-12-31 12:00:00",
        );
        write(
            "transaction_items/a.csv",
            "transaction_id,item_id,quantity,unit_price,subtotal,created_at\n\
             a,1,2,1.0,2.0,2024-01-01 10:00:00\nb,2,2,1.5,3.0,2024-01-09 10:00:00\n",
        );
        write("users/a.csv", "user_id,gender,birthdate,registered_at\n7,f,1990-01-02,x\n");
        write(
            "stores/a.csv",
            "store_id,store_name,street,postal_code,city,state,latitude,longitude\n\
             1,\"Quay, North\",s,p,c,s,1,2\n",
        );
        write(
            "menu_items/a.csv",
            "item_id,item_name,category,price,is_seasonal,available_from,available_to\n\
             1,Latte,c,1,f,,\n2,\"A \"\"Flat\"\" one\",c,1,f,,\n",
        );
        let answer = coffee(folder.path());
        let report = |name: &str| answer.reports[name].lines().skip(1).collect::<Vec<_>>();
        assert_eq!(report("q1.csv"), ["a,75.00", "b,80.00"]);
        assert_eq!(report("q2_quantity.csv"), ["2024-01,Latte,2"]);
        assert_eq!(report("q2_revenue.csv"), ["2024-01,\"A \"\"Flat\"\" one\",3.00"]);
        let expected = ["2024-H1,\"Quay, North\",80.00", "2024-H2,\"Quay, North\",75.00"];
        assert_eq!(report("q3.csv"), expected);
        assert_eq!(report("q4.csv"), ["\"Quay, North\",7,1990-01-02,2"]);
        assert_eq!(answer.rows["transactions"], (6, 2));
    }
}
