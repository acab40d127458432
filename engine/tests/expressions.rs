//! The meaning of expressions, row by row.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cortado_engine::Plan;
use support::{cut, recompute, text};

const ROWS: &str = "n,a,b,d,t,at\n\
    1,7,2,1.50,x,2024-03-31 05:59:59\n\
    2,-7,,2.25,,2024-07-01 06:00:00\n\
    3,9223372036854775807,0,-0.01,\"it's, y\",2025-12-31 23:00:00.5\n";

/// The values of an expression for the rows, joined by blanks; rejected rows are left out.
fn values(expression: &str) -> String {
    run(&format!("columns = {{ n = 'n', value = \"\"\"{expression}\"\"\" }}"), 1)
}

/// The numbers of the rows for which a condition holds.
fn rows(condition: &str) -> String {
    run(&format!("where = \"\"\"{condition}\"\"\"\nselect = ['n']"), 0)
}

fn run(query: &str, column: usize) -> String {
    let plan = format!(
        "name = 'x'\n[tables.x]\nfiles = 'x.csv'\n[tables.x.columns]\n\
         n = 'int'\na = 'int'\nb = 'int?'\nd = 'decimal(2)'\nt = 'text?'\nat = 'timestamp'\n\
         [[queries]]\noutput = 'q.csv'\nfrom = 'x'\norder_by = ['n']\n{query}\n"
    );
    let plan = Plan::parse(&plan).unwrap();
    let dataset = vec![vec![("x.csv".to_owned(), ROWS.as_bytes().to_vec())]];
    let (spec, batches) = cut(&plan, 1, &dataset, 1000);
    let files = recompute(&plan, &spec, &batches);
    let lines = text(&files[0]).lines().skip(1);
    let fields = lines.map(|line| line.splitn(2, ',').nth(column).unwrap());
    fields.collect::<Vec<_>>().join(" ")
}

#[test]
fn numbers_are_exact() {
    assert_eq!(values("a + d"), "8.50 -4.75");
    assert_eq!(values("a - 1"), "6 -8 9223372036854775806");
    assert_eq!(values("a + 1"), "8 -6");
    assert_eq!(values("d * d"), "2.2500 5.0625 0.0001");
    assert_eq!(values("d / 8"), "0.187500 0.281250 -0.001250");
    assert_eq!(values("1 / (n + 6)"), "0.142857 0.125000 0.111111");
    assert_eq!(values("-b"), "-2  0");
    assert_eq!(values("10 / b"), "5.000000 ");
    assert_eq!(values("- -5"), "5 5 5");
    assert_eq!(values("coalesce(b, d)"), "2.00 2.25 0.00");
    assert_eq!(values("coalesce(t, 'none')"), "x none \"it's, y\"");
    assert_eq!(values("'it''s'"), "it's it's it's");
}

#[test]
fn times_have_parts() {
    assert_eq!(values("year(at) * 100 + month(at)"), "202403 202407 202512");
    assert_eq!(values("half(at)"), "1 2 2");
    assert_eq!(values("year_month(at)"), "2024-03 2024-07 2025-12");
    assert_eq!(values("year_half(date(at))"), "2024-H1 2024-H2 2025-H2");
    assert_eq!(values("date(at)"), "2024-03-31 2024-07-01 2025-12-31");
    assert_eq!(values("time(at)"), "05:59:59 06:00:00 23:00:00.5");
    assert_eq!(rows("time(at) between '06:00:00' and '23:00:00'"), "2");
    assert_eq!(rows("time(at) >= '06:00'"), "2 3");
    assert_eq!(rows("year_half(at) = '2024-H2'"), "2");
    assert_eq!(rows("'2024-07' < year_month(at)"), "3");
    assert_eq!(rows("at < '2024-07-01'"), "1");
    assert_eq!(rows("date(at) in ('2024-07-01', '2025-12-31')"), "2 3");
}

#[test]
fn logic_has_three_values() {
    assert_eq!(rows("b = 2"), "1");
    assert_eq!(rows("b <> 2"), "3");
    assert_eq!(rows("not (b = 2)"), "3");
    assert_eq!(rows("b is null"), "2");
    assert_eq!(rows("b is not null"), "1 3");
    assert_eq!(rows("b = 2 or a < 0"), "1 2");
    assert_eq!(rows("not (b = 2 and a < 0)"), "1 3");
    assert_eq!(rows("not (b = 2 and a > 0)"), "2 3");
    assert_eq!(rows("b in (0, 5)"), "3");
    assert_eq!(rows("b not in (0, 5)"), "1");
    assert_eq!(rows("b not between 1 and 2"), "3");
    assert_eq!(rows("t > 'it'"), "1 3");
    assert_eq!(rows("t <> t"), "");
    assert_eq!(rows("d >= 1.505"), "2");
    assert_eq!(rows("true and not false"), "1 2 3");
}

#[test]
fn errors_reject_the_row_unless_they_do_not_matter() {
    assert_eq!(rows("10 / b > 1"), "1");
    assert_eq!(rows("10 / b > 1 or n = 3"), "1 3");
    assert_eq!(rows("not (n < 3 and 10 / b > 1)"), "3");
    assert_eq!(rows("coalesce(10 / b, 1) > 0"), "1 2");
    assert_eq!(rows("a * a > 0"), "1 2");
}
