//! The coffee reports of a dataset small enough to check by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cortado_engine::{COFFEE, Plan};
use support::{Dataset, cut, recompute, text};

fn dataset() -> Dataset {
    let file = |name: &str, content: &str| vec![(name.to_owned(), content.as_bytes().to_vec())];
    vec![
        file(
            "transactions/202401.csv",
            "transaction_id,store_id,payment_method_id,voucher_id,user_id,original_amount,discount_applied,final_amount,created_at\n\
             b,1,1,,7.0,80.0,0.0,80.0,2024-01-01 06:00:00\n\
             a,1,1,,7,75.0,0.0,75.0,2025-06-30 23:00:00\n\
             c,1,1,,,74.99,0.0,74.99,2024-01-01 12:00:00\n\
             d,2,1,9,8,99.5,0.0,99.5,2024-01-01 23:00:01\n\
             e,2,1,,8,1,0.0,1,2024-07-01 10:00:00\n\
             f,2,1,,7,1,0.0,1,2024-07-01 05:59:59\n\
             g,2,1,,9,500,0.0,500,2023-12-31 12:00:00\n\
             h,2,1,,5,1,0.0,1,2024-02-01 02:00:00\n\
             i,2,1,,6,1,0.0,1,2024-02-01 02:00:00\n",
        ),
        file(
            "transaction_items/202401.csv",
            "transaction_id,item_id,quantity,unit_price,subtotal,created_at\n\
             a,1,3,1.0,3.0,2024-01-01 03:00:00\n\
             a,2,1,9.5,9.5,2024-01-02 10:00:00\n\
             b,2,2,1.0,2.0,2024-01-31 23:59:59\n\
             c,3,1,1.0,1.0,2025-12-31 10:00:00\n\
             d,3,9,1.0,9.0,2026-01-01 00:00:00\n",
        ),
        file(
            "users/users.csv",
            "user_id,gender,birthdate,registered_at\n\
             7,f,1990-01-01,2023-01-01 00:00:00\n8,m,,2023-01-01 00:00:00\n",
        ),
        file(
            "stores/stores.csv",
            "store_id,store_name,street,postal_code,city,state,latitude,longitude\n\
             1,\"Nord, Mitte\",x,1,x,x,0,0\n2,Alt,x,1,x,x,0,0\n",
        ),
        file(
            "menu_items/menu.csv",
            "item_id,item_name,category,price,is_seasonal,available_from,available_to\n\
             1,Espresso,c,1,False,,\n2,Latte,c,1,False,,\n",
        ),
    ]
}

fn reports(plan: &str) -> Vec<String> {
    let plan = Plan::parse(plan).unwrap();
    let (spec, batches) = cut(&plan, 64, &dataset(), 1 << 20);
    recompute(&plan, &spec, &batches).iter().map(|file| text(file).to_owned()).collect()
}

#[test]
fn the_four_reports() {
    let files = reports(COFFEE);
    assert_eq!(files[0], "transaction_id,final_amount\na,75.00\nb,80.00\n");
    assert_eq!(
        files[1],
        "year_month_created_at,item_name,sellings_qty\n2024-01,Espresso,3\n2025-12,,1\n"
    );
    assert_eq!(
        files[2],
        "year_month_created_at,item_name,profit_sum\n2024-01,Latte,11.50\n2025-12,,1.00\n"
    );
    assert_eq!(
        files[3],
        "year_half_created_at,store_name,tpv\n\
         2024-H1,\"Nord, Mitte\",154.99\n\
         2024-H2,Alt,1.00\n\
         2025-H1,\"Nord, Mitte\",75.00\n"
    );
    assert_eq!(
        files[4],
        "store_name,user_id,birthdate,purchases_qty\n\
         Alt,8,,2\n\
         Alt,5,,1\n\
         Alt,6,,1\n\
         \"Nord, Mitte\",7,1990-01-01,2\n"
    );
}

#[test]
fn all_ties_keep_everyone_level_with_the_third() {
    let files = reports(&COFFEE.replace("ties = \"user_id\"", "ties = \"all\""));
    assert_eq!(
        files[4],
        "store_name,user_id,birthdate,purchases_qty\n\
         Alt,8,,2\n\
         Alt,5,,1\n\
         Alt,6,,1\n\
         Alt,7,1990-01-01,1\n\
         \"Nord, Mitte\",7,1990-01-01,2\n"
    );
}
