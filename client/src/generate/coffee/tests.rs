use std::collections::{BTreeMap, HashMap};

use super::*;

fn options(seed: u64) -> CoffeeOptions {
    CoffeeOptions {
        months: vec!["202402".parse().unwrap(), "202501".parse().unwrap()],
        transactions_per_month: 3_000,
        users: 500,
        seed,
    }
}

fn contents(options: &CoffeeOptions) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let files = generate(folder.path(), options).unwrap();
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(folder.path().join(&file.name)).unwrap();
            assert_eq!(text.len() as u64, file.bytes, "{}", file.name);
            assert_eq!(text.lines().count() as u64, file.rows + 1, "{}", file.name);
            (file.name, text)
        })
        .collect()
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().skip(1).map(|line| line.split(',').collect())
}

#[test]
fn the_same_options_give_the_same_bytes_and_another_seed_does_not() {
    let first = contents(&options(1));
    assert_eq!(first, contents(&options(1)));
    let other = contents(&options(2));
    let name = "transactions/transactions_202402.csv";
    assert_ne!(first[name], other[name]);
    let alone = CoffeeOptions { months: vec!["202402".parse().unwrap()], ..options(1) };
    let items = "transaction_items/transaction_items_202402.csv";
    let ids = |text: &str| rows(text).map(|row| row[0].to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&contents(&alone)[items])[..100], ids(&first[items])[..100]);
}

#[test]
fn amounts_agree_and_values_look_like_the_real_ones() {
    let cents = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap();
        whole.parse::<u64>().unwrap() * 100
            + part.parse::<u64>().unwrap() * if part.len() == 1 { 10 } else { 1 }
    };
    let files = contents(&options(7));
    let mut subtotals: HashMap<&str, u64> = HashMap::new();
    for row in rows(&files["transaction_items/transaction_items_202501.csv"]) {
        assert_eq!(cents(row[3]) * row[2].parse::<u64>().unwrap(), cents(row[4]));
        *subtotals.entry(row[0]).or_default() += cents(row[4]);
    }
    let (mut anonymous, mut floats, mut early, mut vouchers, mut total) = (0, 0, 0, 0, 0);
    for row in rows(&files["transactions/transactions_202501.csv"]) {
        assert_eq!(row.len(), 9);
        assert_eq!(subtotals[row[0]], cents(row[5]));
        assert_eq!(cents(row[5]) - cents(row[6]), cents(row[7]));
        assert!(row[8].starts_with("2025-01-") && row[8].len() == 19, "{}", row[8]);
        let user = row[4].strip_suffix(".0").unwrap_or(row[4]);
        assert!(user.is_empty() || (1..=500).contains(&user.parse::<u64>().unwrap()));
        total += 1;
        anonymous += u32::from(row[4].is_empty());
        floats += u32::from(row[4].ends_with(".0"));
        early += u32::from(&row[8][11..] < "06:00:00");
        vouchers += u32::from(!row[3].is_empty());
    }
    assert_eq!(total, 3_000);
    assert!((1_600..2_000).contains(&anonymous), "{anonymous}");
    assert!(floats > 100 && early > 500 && vouchers > 50, "{floats} {early} {vouchers}");
    let users: usize = files
        .iter()
        .filter(|(name, _)| name.starts_with("users/"))
        .map(|(_, text)| rows(text).count())
        .sum();
    assert_eq!(users, 500);
}

#[test]
fn a_foreign_file_is_not_mixed_with_the_dataset() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), &options(1)).unwrap();
    generate(folder.path(), &options(1)).unwrap();
    fs::write(folder.path().join("transactions/extra.csv"), "x").unwrap();
    let error = generate(folder.path(), &options(1)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("extra.csv"), "{error}");
}
