"""The four reports of plans/coffee.toml with DuckDB or Polars, from the same CSV files.

    engines.py duckdb|polars DATA OUT THREADS

Starts the clock after the import of the library and prints {"seconds": …, "version": …}. Nothing is
kept between runs: files are read, reports are written. Amounts are exact decimals.
"""

import json
import os
import sys
import time
from pathlib import Path

ITEMS = {
    "transaction_id": "VARCHAR",
    "item_id": "BIGINT",
    "quantity": "BIGINT",
    "unit_price": "DECIMAL(18,2)",
    "subtotal": "DECIMAL(18,2)",
    "created_at": "TIMESTAMP",
}
TRANSACTIONS = {
    "transaction_id": "VARCHAR",
    "store_id": "BIGINT",
    "payment_method_id": "BIGINT",
    "voucher_id": "VARCHAR",
    "user_id": "DOUBLE",  # real exports write 1038745.0
    "original_amount": "DECIMAL(18,2)",
    "discount_applied": "DECIMAL(18,2)",
    "final_amount": "DECIMAL(18,2)",
    "created_at": "TIMESTAMP",
}


def duckdb_reports(data: Path, out: Path, threads: int):
    import duckdb

    began = time.perf_counter()
    db = duckdb.connect(config={"threads": threads})
    # These queries do not depend on the order of rows.
    db.execute("SET preserve_insertion_order = false")

    def table(name: str, columns: dict[str, str] | None = None) -> str:
        typed = f", header=true, auto_detect=false, columns={columns}" if columns else ""
        return f"read_csv('{data}/{name}/*.csv'{typed})"

    # Several queries use the same files, so the needed columns are read once.
    db.execute(f"""
        CREATE TEMP TABLE t AS
        SELECT transaction_id, store_id, user_id::BIGINT AS user_id, final_amount, created_at
        FROM {table('transactions', TRANSACTIONS)} WHERE year(created_at) BETWEEN 2024 AND 2025;
        CREATE TEMP TABLE s AS
        SELECT strftime(date_trunc('month', created_at), '%Y-%m') AS month, item_id,
               sum(quantity) AS quantity, sum(subtotal) AS revenue
        FROM (SELECT item_id, quantity, subtotal, created_at FROM {table('transaction_items', ITEMS)})
        WHERE year(created_at) BETWEEN 2024 AND 2025
        GROUP BY date_trunc('month', created_at), item_id;
        CREATE TEMP TABLE menu AS SELECT item_id, item_name FROM {table('menu_items')};
        CREATE TEMP TABLE stores AS SELECT store_id, store_name FROM {table('stores')};
    """)
    day = "created_at::TIME BETWEEN '06:00:00' AND '23:00:00'"
    half = "year(created_at) || '-H' || CASE WHEN month(created_at) <= 6 THEN 1 ELSE 2 END"

    def best(value: str, alias: str) -> str:
        return f"""
            SELECT month AS year_month_created_at, item_name, {value}::VARCHAR AS {alias}
            FROM (SELECT *, row_number() OVER (PARTITION BY month ORDER BY {value} DESC, item_id) AS n
                  FROM s) LEFT JOIN menu USING (item_id)
            WHERE n = 1 ORDER BY month"""

    users = {"user_id": "BIGINT", "gender": "VARCHAR", "birthdate": "VARCHAR", "registered_at": "VARCHAR"}
    reports = {
        "q1.csv": f"""
            SELECT transaction_id, final_amount FROM t
            WHERE {day} AND final_amount >= 75 ORDER BY transaction_id""",
        "q2_quantity.csv": best("quantity", "sellings_qty"),
        "q2_revenue.csv": best("revenue", "profit_sum"),
        "q3.csv": f"""
            SELECT half AS year_half_created_at, store_name, tpv
            FROM (SELECT {half} AS half, store_id, sum(final_amount) AS tpv FROM t
                  WHERE {day} GROUP BY ALL) LEFT JOIN stores USING (store_id)
            ORDER BY half, store_name""",
        "q4.csv": f"""
            WITH counted AS (
                SELECT store_id, user_id, count(*) AS purchases_qty FROM t
                WHERE user_id IS NOT NULL GROUP BY ALL),
            best AS (
                SELECT * FROM counted
                QUALIFY row_number() OVER (
                    PARTITION BY store_id ORDER BY purchases_qty DESC, user_id) <= 3)
            SELECT store_name, user_id, birthdate, purchases_qty
            FROM best LEFT JOIN stores USING (store_id)
                      LEFT JOIN (SELECT user_id, birthdate FROM {table('users', users)}) USING (user_id)
            ORDER BY store_name, purchases_qty DESC, user_id""",
    }
    for name, query in reports.items():
        db.execute(f"COPY ({query}) TO '{out / name}' (HEADER, QUOTE '')" if name != "q1.csv"
                   else f"COPY ({query}) TO '{out / name}' (HEADER)")
    return time.perf_counter() - began, duckdb.__version__


def polars_reports(data: Path, out: Path, _threads: int):
    import polars as pl

    began = time.perf_counter()
    money = pl.Decimal(18, 2)
    col = pl.col

    def table(name: str, **types) -> "pl.LazyFrame":
        return pl.scan_csv(f"{data}/{name}/*.csv", schema_overrides=types)

    # Timestamps stay texts: to compare and cut them is several times faster than to parse them.
    years = col("created_at").str.head(4).is_between(pl.lit("2024"), pl.lit("2025"))
    day = col("created_at").str.slice(11, 8).is_between(pl.lit("06:00:00"), pl.lit("23:00:00"))
    t = table(
        "transactions", user_id=pl.Float64, final_amount=money, created_at=pl.String,
        voucher_id=pl.String,
    ).select("transaction_id", "store_id", "user_id", "final_amount", "created_at").filter(years)
    items = table("transaction_items", subtotal=money, created_at=pl.String).select(
        "item_id", "quantity", "subtotal", "created_at").filter(years)
    menu = table("menu_items").select("item_id", "item_name")
    stores = table("stores").select("store_id", "store_name")
    users = table("users", birthdate=pl.String).select("user_id", "birthdate")

    month = col("created_at").str.head(7).alias("year_month_created_at")
    sold = items.group_by(month, "item_id").agg(
        col("quantity").sum().alias("sellings_qty"), col("subtotal").sum().alias("profit_sum"))

    def best(value: str) -> "pl.LazyFrame":
        return (
            sold.sort("year_month_created_at", value, "item_id", descending=[False, True, False])
            .group_by("year_month_created_at", maintain_order=True).first()
            .join(menu, on="item_id", how="left").sort("year_month_created_at")
            .select("year_month_created_at", "item_name", value)
        )

    # Groups by month first; the halves are made from these few groups.
    months = t.filter(day).group_by(col("created_at").str.head(7).alias("m"), "store_id").agg(
        col("final_amount").sum())
    half = (col("m").str.head(4) + "-H" + ((col("m").str.slice(5).cast(pl.Int64) - 1) // 6 + 1)
            .cast(pl.String)).alias("year_half_created_at")
    halves = months.group_by(half, "store_id").agg(col("final_amount").sum().alias("tpv"))
    counted = t.filter(col("user_id").is_not_null()).group_by(
        "store_id", col("user_id").cast(pl.Int64)).agg(pl.len().alias("purchases_qty"))
    top = counted.sort("store_id", "purchases_qty", "user_id", descending=[False, True, False]
                       ).group_by("store_id", maintain_order=True).head(3)
    reports = {
        "q1.csv": t.filter(day & (col("final_amount") >= 75)).select(
            "transaction_id", "final_amount").sort("transaction_id"),
        "q2_quantity.csv": best("sellings_qty"),
        "q2_revenue.csv": best("profit_sum"),
        "q3.csv": halves.join(stores, on="store_id", how="left")
        .select("year_half_created_at", "store_name", "tpv")
        .sort("year_half_created_at", "store_name"),
        "q4.csv": top.join(stores, on="store_id", how="left").join(users, on="user_id", how="left")
        .select("store_name", "user_id", "birthdate", "purchases_qty")
        .sort("store_name", "purchases_qty", "user_id", descending=[False, True, False]),
    }
    for name, frame in zip(reports, pl.collect_all(list(reports.values()))):
        frame.write_csv(out / name)
    return time.perf_counter() - began, pl.__version__


def main() -> None:
    engine, data, out, threads = sys.argv[1:]
    reports = {"duckdb": duckdb_reports, "polars": polars_reports}[engine]
    Path(out).mkdir(parents=True, exist_ok=True)
    os.environ["POLARS_MAX_THREADS"] = threads  # read when it is imported
    __import__(engine)
    seconds, version = reports(Path(data), Path(out), int(threads))
    print(json.dumps({"seconds": seconds, "version": version}))


if __name__ == "__main__":
    main()
