//! Errors in plans: the line, what is wrong, what was expected.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cortado_engine::{COFFEE, HeaderError, Plan};

/// A plan with the given query, which starts at line 12.
fn plan(query: &str) -> String {
    format!(
        r#"name = "sample"
[tables.sales]
files = "sales/*.csv"
[tables.sales.columns]
id = "int"
shop = "text?"
amount = "decimal(2)"
at = "timestamp"
[tables.shops]
files = "shops.csv"
columns = {{ id = "int", shop = "text" }}
{query}"#
    )
}

fn complaint(text: &str) -> (usize, String) {
    let error = Plan::parse(text).unwrap_err();
    (error.line, error.message)
}

#[test]
fn the_plans_at_hand_are_right() {
    let coffee = Plan::parse(COFFEE).unwrap();
    assert_eq!(coffee.name(), "coffee");
    let outputs: Vec<_> = coffee.outputs().collect();
    assert_eq!(outputs, ["q1.csv", "q2_quantity.csv", "q2_revenue.csv", "q3.csv", "q4.csv"]);
    let tables: Vec<_> = coffee.tables().iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["transactions", "transaction_items", "users", "stores", "menu_items"]);
    let users: Vec<_> = coffee.tables()[2].columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(users, ["user_id", "birthdate"]);
    assert_ne!(coffee.hash(), Plan::parse(support::rides::PLAN).unwrap().hash());
    Plan::parse(&COFFEE.replace("ties = \"user_id\"", "ties = \"all\"")).unwrap();
}

#[test]
fn mistakes_name_line_problem_and_expectation() {
    let query =
        |lines: &str| plan(&format!("[[queries]]\noutput = 'q.csv'\nfrom = 'sales'\n{lines}"));
    let root = |line: &str| plan("").replacen('\n', &format!("\n{line}\n"), 1);
    for (text, line, parts) in [
        ("name = ".to_owned(), 1, vec![]),
        ("name = 'x'\nqueries = []\n".to_owned(), 1, vec!["lacks the key 'tables'"]),
        (root("queries = 1"), 2, vec!["must be a list"]),
        (root("colour = 1"), 2, vec!["no key 'colour'", "expected one of", "queries"]),
        (plan("colour = 1"), 12, vec!["'shops'", "no key 'colour'", "files, columns"]),
        (plan("").replace("decimal(2)", "float"), 7, vec!["'float' is no type", "decimal(SCALE)"]),
        (plan("").replace("decimal(2)", "decimal(19)"), 7, vec!["no type"]),
        (plan("").replace("sales/*.csv", "../x"), 3, vec!["no file pattern"]),
        (plan("[[queries]]\nfrom = 'sales'"), 12, vec!["lacks the key 'output'"]),
        (plan("[[queries]]\noutput = 'a/b'\nfrom = 'sales'"), 13, vec!["no file name"]),
        (plan("[[queries]]\noutput = 'receipt.json'\nfrom = 'sales'"), 13, vec!["receipt"]),
        (plan("[[queries]]\noutput = 'q'\nfrom = 'sale'"), 14, vec!["'sale'", "sales, shops"]),
        (query("where = \"amont > 1\""), 15, vec!["'amont'", "id, shop, amount, at"]),
        (query("where = \"\"\"\namount >\"\"\""), 15, vec!["bad SQL"]),
        (query("where = \"amount > 1 amount\""), 15, vec!["bad SQL", "end of the expression"]),
        (query("where = \"amount\""), 15, vec!["decimal(2)", "expected a condition"]),
        (query("where = \"amount > 'x'\""), 15, vec!["decimal(2) can't be compared with text"]),
        (query("where = \"at > 'x'\""), 15, vec!["'x' is not a timestamp", "2024-01-31"]),
        (query("where = \"yeer(at) = 1\""), 15, vec!["unknown function 'yeer'", "year_half"]),
        (query("where = \"year(id) = 1\""), 15, vec!["'year' can't be applied to int"]),
        (query("where = \"year(at, at) = 1\""), 15, vec!["takes 1 argument, found 2"]),
        (query("where = \"shop = null\""), 15, vec!["is null"]),
        (query("where = \"sum(id) = 1\""), 15, vec!["aggregates"]),
        (query("where = \"shop like 'a'\""), 15, vec!["not supported"]),
        (query("columns = { x = 'shop + 1' }"), 15, vec!["text and int", "expected numbers"]),
        (query("columns = { x = 'id > 1' }"), 15, vec!["expected a value"]),
        (query("select = ['x']"), 15, vec!["unknown column 'x'"]),
        (query("order_by = ['id up']"), 15, vec!["expected 'column [asc|desc]'"]),
        (query("limit = -1"), 15, vec!["whole number above 0"]),
        (query("aggregates = { n = 'median(id)' }"), 15, vec!["sum, count, min, max or avg"]),
        (query("aggregates = { n = 'sum(shop)' }"), 15, vec!["text can't be added up"]),
        (query("group_by = { id = 'id' }\ncolumns = { id = 'id' }"), 16, vec!["exclude"]),
        (query("group_by = { id = 'id' }\naggregates = { id = 'count(*)' }"), 16, vec!["'id'"]),
        (query("top = { n = 1, by = 'id', per = ['z'] }"), 15, vec!["unknown column 'z'"]),
        (query("top = { n = 1 }"), 15, vec!["lacks the key 'by'"]),
        (
            query("joins = [\n  { table = 'shops', on = 'shop', columns = ['id as x'] },\n]"),
            16,
            vec!["no join condition"],
        ),
        (
            query("joins = [{ table = 'shops', on = 'id = shop', columns = ['id as x'] }]"),
            15,
            vec!["int can't be joined with text"],
        ),
        (
            query("joins = [{ table = 'shops', on = 'id = id', columns = ['shop'] }]"),
            15,
            vec!["already has a column 'shop'"],
        ),
        (
            query("joins = [{ table = 'shops', on = 'id = id', kind = 'full', columns = [] }]"),
            15,
            vec!["expected left or inner"],
        ),
    ] {
        let (found, message) = complaint(&text);
        assert_eq!(found, line, "{message}\n{text}");
        for part in parts {
            assert!(message.contains(part), "'{message}' lacks '{part}'");
        }
    }
}

#[test]
fn deep_and_long_expressions_are_refused() {
    let deep = format!("{}id{} > 1", "(".repeat(1000), ")".repeat(1000));
    let long = "id > 1 and ".repeat(1000) + "id > 1";
    let filter = |text: String| {
        plan(&format!("[[queries]]\noutput = 'q'\nfrom = 'sales'\nwhere = '{text}'"))
    };
    for text in [deep, long] {
        assert_eq!(complaint(&filter(text)).0, 15);
    }
    // Within the limit of bytes, but too deep. A list may have many members, since it is not deep.
    for chain in ["- ".repeat(1000) + "id > 1", "id+".repeat(1000) + "id > 1"] {
        let (line, message) = complaint(&filter(chain));
        assert_eq!(line, 15);
        assert!(message.contains("operators, at most 256"), "{message}");
    }
    Plan::parse(&filter(format!("id in ({}1)", "1,".repeat(1000)))).unwrap();
}

#[test]
fn plans_are_bounded() {
    let sum =
        |n: usize| (0..250).map(|k| format!("{}", n * 1000 + k)).collect::<Vec<_>>().join("+");
    let columns: Vec<_> = (0..60).map(|n| format!("c{n} = 'id+{}'", sum(n))).collect();
    let text = format!(
        "[[queries]]\noutput = 'q'\nfrom = 'sales'\ncolumns = {{ {} }}",
        columns.join(", ")
    );
    assert!(complaint(&plan(&text)).1.contains("subexpressions"));
    let long = format!("# {}\n{}", "x".repeat(1 << 20), plan(""));
    assert!(complaint(&long).1.contains("bytes"));
}

#[test]
fn headers_are_bound_by_name() {
    let plan = Plan::parse(COFFEE).unwrap();
    let bind = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        plan.bind_header(3, &names)
    };
    bind(&["store_name", "x", "x", "store_id"]).unwrap();
    bind(&[]).unwrap();
    let missing = bind(&["store_id", "name"]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "column 'store_name' is missing; the header has: store_id, name"
    );
    assert_eq!(
        bind(&["store_id", "store_name", "store_id"]),
        Err(HeaderError::Twice("store_id".into()))
    );
}
