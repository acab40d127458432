#!/usr/bin/env bash
# Measures Cortado on this machine: the time from the start of the client until its results are
# written, on local nodes, with the standard dataset (about 300 MB). Compares it with DuckDB and
# Polars, which answer the same queries on the same files with two threads. Takes a few minutes.
#
#   scripts/bench.sh                  the table, for clusters of 1, 3, 5 and 8 nodes
#   scripts/bench.sh --nodes 5 --runs 9
#   scripts/bench.sh --curve | --small | --two-clients | --start | --catch-up | --storage | --events | --http | --profile
#   BENCH_DIR=/elsewhere scripts/bench.sh          BENCH_BIN=DIR: programs built before
#
# Datasets, clusters and results are kept in target/bench. Needs Python 3 with venv; installs DuckDB
# and Polars from PyPI into a virtual environment there. --profile needs perf, and installs inferno
# from crates.io. Stops every process it starts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
work=${BENCH_DIR:-$target/bench}
python=$work/venv/bin/python

if ! command -v cargo >/dev/null && [[ -f $HOME/.cargo/env ]]; then
    . "$HOME/.cargo/env"
fi
if [[ -z ${BENCH_BIN:-} && " $* " == *" --profile "* ]]; then
    # Call stacks need frame pointers, which the released programs lack.
    BENCH_BIN=$work/programs/release
    RUSTFLAGS='-C force-frame-pointers=yes' CARGO_PROFILE_RELEASE_STRIP=none \
        CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
        cargo build --release -q -p cortado -p cortado-node --target-dir "$work/programs"
elif [[ -z ${BENCH_BIN:-} ]]; then
    cargo build --release -q -p cortado -p cortado-node
    if [[ " $* " == *" --storage "* ]]; then
        cargo build --release -q -p tests --bin fill_log
    fi
fi
if [[ " $* " == *" --profile "* && ! -x $work/tools/bin/inferno-flamegraph ]]; then
    cargo install -q inferno --locked --no-default-features --features cli --root "$work/tools"
fi
if [[ " $* " != *" --help "* && ! -x $python ]]; then
    mkdir -p "$work"
    python3 -m venv "$work/venv"
fi
if [[ " $* " != *" --events "* ]] && ! "$python" -c 'import duckdb, polars' 2>/dev/null; then
    "$python" -m pip install -q duckdb polars
fi
exec "$python" bench/bench.py --bin "${BENCH_BIN:-$target/release}" --work "$work" "$@"
