//! One month's transactions and their items, in the order of their times.

use std::path::Path;

use super::calendar::Month;
use super::reference::{PAYMENT_METHODS, PRICES, STORES, VOUCHERS, discount_percent};
use super::users::Registrations;
use super::{CoffeeOptions, WrittenFile, at, path_of};
use crate::Error;
use crate::generate::{CsvWriter, Random};

const TRANSACTIONS_HEADER: &str = "transaction_id,store_id,payment_method_id,voucher_id,user_id,\
                                   original_amount,discount_applied,final_amount,created_at";
const ITEMS_HEADER: &str = "transaction_id,item_id,quantity,unit_price,subtotal,created_at";

/// Sales without a customer's card, in percent.
const ANONYMOUS_PERCENT: u64 = 60;
/// Sales with a voucher, in percent.
const VOUCHER_PERCENT: u64 = 6;
/// Customer numbers written as floats (`1038745.0`), as some exports do, in percent.
const FLOAT_PERCENT: u64 = 30;
/// Sales to regulars, in percent of those with a card; regulars are one in a thousand customers.
const REGULAR_PERCENT: u64 = 5;

/// Names of a month's files.
pub(super) fn names(month: Month) -> [String; 2] {
    [
        format!("transactions/transactions_{month}.csv"),
        format!("transaction_items/transaction_items_{month}.csv"),
    ]
}

/// Writes a month.
pub(super) fn write(
    out: &Path,
    options: &CoffeeOptions,
    registrations: &Registrations,
    month: Month,
) -> Result<[WrittenFile; 2], Error> {
    let [sales_name, items_name] = names(month);
    let (sales_path, items_path) = (path_of(out, &sales_name), path_of(out, &items_name));
    let mut random = Random::new(options.seed, &sales_name);
    let mut sales = at(&sales_path, CsvWriter::create(&sales_path, TRANSACTIONS_HEADER))?;
    let mut items = at(&items_path, CsvWriter::create(&items_path, ITEMS_HEADER))?;
    let customers = registrations.registered_by(month);
    let count = options.transactions_per_month;
    let mut item_rows = 0;
    for index in 0..count {
        let id = (random.next_u64(), random.next_u64());
        let second = (u128::from(month.seconds()) * u128::from(index) / u128::from(count)) as u64;

        let mut original = 0;
        let lines = 1 + random.below(3);
        for _ in 0..lines {
            let item = random.below(PRICES.len() as u64);
            let (price, quantity) = (PRICES[item as usize], 1 + random.below(3));
            original += price * quantity;
            items.put_uuid(id.0, id.1);
            items.comma();
            items.put_number(item + 1);
            items.comma();
            items.put_number(quantity);
            items.comma();
            items.put_amount(price);
            items.comma();
            items.put_amount(price * quantity);
            items.comma();
            items.put_timestamp(month, second);
            at(&items_path, items.end_row())?;
        }
        item_rows += lines;

        sales.put_uuid(id.0, id.1);
        sales.comma();
        sales.put_number(1 + random.below(STORES));
        sales.comma();
        sales.put_number(1 + random.below(PAYMENT_METHODS));
        sales.comma();
        let mut discount = 0;
        if random.percent(VOUCHER_PERCENT) {
            let voucher = 1 + random.below(VOUCHERS);
            discount = original * discount_percent(voucher) / 100;
            sales.put_number(voucher);
        }
        sales.comma();
        if !random.percent(ANONYMOUS_PERCENT) {
            sales.put_number(customer(&mut random, customers));
            if random.percent(FLOAT_PERCENT) {
                sales.put(".0");
            }
        }
        sales.comma();
        sales.put_amount(original);
        sales.comma();
        sales.put_amount(discount);
        sales.comma();
        sales.put_amount(original - discount);
        sales.comma();
        sales.put_timestamp(month, second);
        at(&sales_path, sales.end_row())?;
    }
    let sales_bytes = at(&sales_path, sales.finish())?;
    let items_bytes = at(&items_path, items.finish())?;
    Ok([
        WrittenFile { name: sales_name, rows: count, bytes: sales_bytes },
        WrittenFile { name: items_name, rows: item_rows, bytes: items_bytes },
    ])
}

/// Draws the customer: mostly any customer, sometimes one of a few regulars, so that each store has
/// some best customers and ties between them are common.
fn customer(random: &mut Random, customers: u64) -> u64 {
    if random.percent(REGULAR_PERCENT) {
        1 + random.below(customers.div_ceil(1_000)) * 997 % customers
    } else {
        1 + random.below(customers)
    }
}
