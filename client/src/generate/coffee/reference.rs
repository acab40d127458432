//! The small tables: stores, menu, vouchers, payment methods.

use std::path::Path;

use super::{WrittenFile, at, path_of};
use crate::Error;

/// Stores, numbered from 1.
pub(super) const STORES: u64 = 10;
/// Vouchers, numbered from 1; the number gives the discount in percent ([`discount_percent`]).
pub(super) const VOUCHERS: u64 = 5;
/// Ways to pay, numbered from 1.
pub(super) const PAYMENT_METHODS: u64 = 5;
/// Prices of the menu in cents; the item's number is its position, from 1.
pub(super) const PRICES: [u64; 8] = [600, 700, 800, 800, 900, 900, 950, 1_000];

/// The discount of a voucher, in percent.
pub(super) const fn discount_percent(voucher: u64) -> u64 {
    voucher * 5
}

const TABLES: [(&str, &str); 4] = [
    (
        "stores/stores.csv",
        "store_id,store_name,street,postal_code,city,state,latitude,longitude
1,Harbour Lane,12 Harbour Lane,40100,Port Amber,North Shore,3.0412,101.5233
2,Mill Square,3 Mill Square,40200,Port Amber,North Shore,3.0655,101.4877
3,Old Foundry,88 Foundry Road,43500,Greyhill,North Shore,2.9938,101.7874
4,University Gate,1 College Avenue,43600,Greyhill,North Shore,2.9267,101.7801
5,Central Station,\"Platform Hall, Unit 4\",50050,Marlow,Midland,3.1345,101.6861
6,Garden Row,27 Garden Row,50450,Marlow,Midland,3.1588,101.7122
7,Riverside,140 River Street,50470,Marlow,Midland,3.1401,101.6932
8,Airport South,Terminal 2 Arrivals,64000,Skydale,Southland,2.7456,101.7072
9,Lighthouse Point,6 Beacon Way,75000,Cape Wren,Southland,2.1896,102.2501
10,Orchard Mall,\"Level 1, Orchard Mall\",81100,Cape Wren,Southland,1.5421,103.7794
",
    ),
    (
        "menu_items/menu_items.csv",
        "item_id,item_name,category,price,is_seasonal,available_from,available_to
1,Espresso,coffee,6.0,False,,
2,Americano,coffee,7.0,False,,
3,Latte,coffee,8.0,False,,
4,Cappuccino,coffee,8.0,False,,
5,Flat White,coffee,9.0,False,,
6,Mocha,coffee,9.0,False,,
7,Hot Chocolate,non-coffee,9.5,False,,
8,Matcha Latte,non-coffee,10.0,False,,
",
    ),
    (
        "vouchers/vouchers.csv",
        "voucher_id,voucher_code,discount_type,discount_value,valid_from,valid_to
1,WELCOME5,percentage,5.0,2023-01-01,2025-12-31
2,MORNING10,percentage,10.0,2023-01-01,2025-12-31
3,FRIENDS15,percentage,15.0,2023-01-01,2025-12-31
4,BIRTHDAY20,percentage,20.0,2023-01-01,2025-12-31
5,STAFF25,percentage,25.0,2023-01-01,2025-12-31
",
    ),
    (
        "payment_methods/payment_methods.csv",
        "method_id,method_name,category
1,Credit card,card
2,Debit card,card
3,Mobile wallet,digital
4,Cash,cash
5,Gift card,other
",
    ),
];

/// Names of the files.
pub(super) fn names() -> Vec<String> {
    TABLES.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Writes the files.
pub(super) fn write(out: &Path) -> Result<Vec<WrittenFile>, Error> {
    let write_one = |(name, text): &(&str, &str)| {
        let path = path_of(out, name);
        at(&path, std::fs::write(&path, text))?;
        let rows = text.lines().count() as u64 - 1;
        Ok(WrittenFile { name: (*name).to_owned(), rows, bytes: text.len() as u64 })
    };
    TABLES.iter().map(write_one).collect()
}
