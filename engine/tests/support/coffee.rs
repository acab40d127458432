//! Coffee datasets, and the four reports computed in a simple, slow way.

use std::collections::BTreeMap;

use super::naive::{self, decimal, file, half_of, show, timestamp};
use super::{Dataset, Random, damage, write_file};

fn moment(random: &mut Random) -> String {
    let year = random.pick(&["2023", "2024", "2024", "2025", "2025", "2026"]);
    let month = random.pick(&["01", "02", "06", "07", "12"]);
    let time = random.pick(&[
        "05:59:59", "06:00:00", "06:00:01", "12:30:00", "22:59:59", "23:00:00", "23:00:01",
        "00:00:00",
    ]);
    format!("{year}-{month}-{:02} {time}", 1 + random.below(28))
}

fn amount(random: &mut Random) -> String {
    let whole = random.below(150);
    match random.below(4) {
        0 => whole.to_string(),
        1 => format!("{whole}.{}", random.below(10)),
        2 => "75.00".to_owned(),
        _ => format!("{whole}.{:02}", random.below(100)),
    }
}

fn files(
    random: &mut Random,
    folder: &str,
    header: &str,
    mut rows: Vec<Vec<String>>,
) -> Vec<(String, Vec<u8>)> {
    let second = rows.split_off(random.below(rows.len() as u64 + 1) as usize);
    vec![
        (format!("{folder}/a.csv"), write_file(random, header, &rows)),
        (format!("{folder}/b.csv"), write_file(random, header, &second)),
    ]
}

/// A dataset with few stores, users and items, so that ties are common.
pub(crate) fn dataset(random: &mut Random, rows: u64) -> Dataset {
    let mut transactions = Vec::new();
    for n in 0..random.below(rows + 1) {
        let user = match random.below(6) {
            0 => String::new(),
            1 => format!("{}.0", random.below(8)),
            _ => random.below(8).to_string(),
        };
        let mut row = vec![
            format!("t-{:x}-{n}", random.below(1 << 20)),
            (1 + random.below(4)).to_string(),
            "1".to_owned(),
            String::new(),
            user,
            "ignored".to_owned(),
            "0.0".to_owned(),
            amount(random),
            moment(random),
        ];
        damage(random, &mut row);
        transactions.push(row);
    }
    let mut items = Vec::new();
    for n in 0..random.below(rows + 1) {
        let mut row = vec![
            n.to_string(),
            (1 + random.below(5)).to_string(),
            random.below(4).to_string(),
            "x".to_owned(),
            amount(random),
            moment(random),
        ];
        damage(random, &mut row);
        items.push(row);
    }
    let users = (0..random.below(9)).map(|user| {
        let born = if random.chance(20) { String::new() } else { "1990-02-28".to_owned() };
        vec![format!("{user}"), "f".to_owned(), born, moment(random)]
    });
    let users = users.collect();
    let name = |random: &mut Random, n: u64| match random.below(4) {
        0 => format!("G, \"{n}\""),
        1 => format!("Line\nbreak {n}"),
        _ => format!("Kaffee {}", n % 2),
    };
    let fill = |random: &mut Random, n: u64, width: usize| {
        let mut row = vec![n.to_string(), name(random, n)];
        row.resize(width, "z".to_owned());
        row
    };
    let stores = (1..=random.below(5)).map(|n| fill(random, n, 8)).collect();
    let menu = (1..=random.below(6)).map(|n| fill(random, n, 7)).collect();
    vec![
        files(
            random,
            "transactions",
            "transaction_id,store_id,payment_method_id,voucher_id,user_id,original_amount,discount_applied,final_amount,created_at",
            transactions,
        ),
        files(
            random,
            "transaction_items",
            "transaction_id,item_id,quantity,unit_price,subtotal,created_at",
            items,
        ),
        files(random, "users", "user_id,gender,birthdate,registered_at", users),
        files(
            random,
            "stores",
            "store_id,store_name,street,postal_code,city,state,latitude,longitude",
            stores,
        ),
        files(
            random,
            "menu_items",
            "item_id,item_name,category,price,is_seasonal,available_from,available_to",
            menu,
        ),
    ]
}

type Record = BTreeMap<String, String>;

fn table<T>(files: &[(String, Vec<u8>)], read: impl Fn(&Record) -> Option<T>) -> Vec<T> {
    let records = files.iter().flat_map(|(_, bytes)| naive::read(bytes)).flatten();
    records.filter_map(|record| read(&record)).collect()
}

fn int(text: &str) -> Option<i128> {
    decimal(text, 0)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn in_years(at: &str) -> bool {
    &at[..4] == "2024" || &at[..4] == "2025"
}

fn in_hours(at: &str) -> bool {
    ("06:00:00"..="23:00:00").contains(&&at[11..])
}

/// The five result files.
pub(crate) fn reports(dataset: &Dataset) -> Vec<(&'static str, String)> {
    let transactions = table(&dataset[0], |r| {
        let user = match r["user_id"].as_str() {
            "" => None,
            text => Some(int(text)?),
        };
        let amount = decimal(&r["final_amount"], 2)?;
        Some((
            some(&r["transaction_id"])?,
            int(&r["store_id"])?,
            user,
            amount,
            timestamp(&r["created_at"])?,
        ))
    });
    let items = table(&dataset[1], |r| {
        Some((
            int(&r["item_id"])?,
            int(&r["quantity"])?,
            decimal(&r["subtotal"], 2)?,
            timestamp(&r["created_at"])?,
        ))
    });
    let users: BTreeMap<_, _> =
        table(&dataset[2], |r| Some((int(&r["user_id"])?, r["birthdate"].clone())))
            .into_iter()
            .collect();
    let stores: BTreeMap<_, _> =
        table(&dataset[3], |r| Some((int(&r["store_id"])?, some(&r["store_name"])?)))
            .into_iter()
            .collect();
    let menu: BTreeMap<_, _> =
        table(&dataset[4], |r| Some((int(&r["item_id"])?, some(&r["item_name"])?)))
            .into_iter()
            .collect();

    let mut q1 = Vec::new();
    let mut q3: BTreeMap<(String, i128), i128> = BTreeMap::new();
    let mut q4: BTreeMap<i128, BTreeMap<i128, i128>> = BTreeMap::new();
    for (id, store, user, amount, at) in &transactions {
        if !in_years(at) {
            continue;
        }
        if in_hours(at) {
            if *amount >= 7500 {
                q1.push((id.clone(), *amount));
            }
            *q3.entry((half_of(at), *store)).or_default() += amount;
        }
        if let Some(user) = user {
            *q4.entry(*store).or_default().entry(*user).or_default() += 1;
        }
    }
    q1.sort();
    let name = |store: &i128| stores.get(store).cloned().unwrap_or_default();
    let mut q3: Vec<_> = q3
        .into_iter()
        .map(|((half, store), tpv)| (half, name(&store).is_empty(), name(&store), store, tpv))
        .collect();
    q3.sort();
    let mut best = Vec::new();
    for (store, counts) in &q4 {
        let mut counts: Vec<_> = counts.iter().map(|(user, count)| (-count, *user)).collect();
        counts.sort();
        for (count, user) in counts.into_iter().take(3) {
            best.push((name(store).is_empty(), name(store), count, user, *store));
        }
    }
    best.sort();

    let mut months: BTreeMap<String, BTreeMap<i128, (i128, i128)>> = BTreeMap::new();
    for (item, quantity, subtotal, at) in &items {
        if in_years(at) {
            let sums = months.entry(at[..7].to_owned()).or_default().entry(*item).or_default();
            sums.0 += quantity;
            sums.1 += subtotal;
        }
    }
    let winner = |by: fn(&(i128, i128)) -> i128, scale| {
        let rows = months.iter().map(|(month, sums)| {
            let most = sums.values().map(by).max().unwrap();
            let (item, _) = sums.iter().find(|(_, sums)| by(sums) == most).unwrap();
            vec![month.clone(), menu.get(item).cloned().unwrap_or_default(), show(most, scale)]
        });
        rows.collect::<Vec<_>>()
    };
    vec![
        (
            "q1.csv",
            file("transaction_id,final_amount", q1.into_iter().map(|(id, a)| vec![id, show(a, 2)])),
        ),
        (
            "q2_quantity.csv",
            file("year_month_created_at,item_name,sellings_qty", winner(|s| s.0, 0)),
        ),
        ("q2_revenue.csv", file("year_month_created_at,item_name,profit_sum", winner(|s| s.1, 2))),
        (
            "q3.csv",
            file(
                "year_half_created_at,store_name,tpv",
                q3.into_iter().map(|(half, _, store, _, tpv)| vec![half, store, show(tpv, 2)]),
            ),
        ),
        (
            "q4.csv",
            file(
                "store_name,user_id,birthdate,purchases_qty",
                best.into_iter().map(|(_, store, count, user, _)| {
                    let born = users.get(&user).cloned().unwrap_or_default();
                    vec![store, user.to_string(), born, (-count).to_string()]
                }),
            ),
        ),
    ]
}
