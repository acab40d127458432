#!/usr/bin/env bash
# Runs all checks that must pass before a change is merged: formatting, lints, documentation,
# all tests, documentation examples, and a batch of simulated clusters. Needs cargo and a C
# compiler; leaves no process behind.
#
#   scripts/test.sh
#   scripts/test.sh --quick             without processes, containers and fuzzing
#   SEEDS=0..10000 scripts/test.sh      more simulated clusters
#   FUZZ_SECONDS=600 scripts/test.sh    more seconds for each fuzz target
set -euo pipefail
quick=''
case ${1:-} in
'') ;;
--quick) quick=yes ;;
*)
    echo "unknown option $1; expected nothing or --quick" >&2
    exit 2
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds=${SEEDS:-0..300}
fuzz_seconds=${FUZZ_SECONDS:-4}
bin=${CARGO_TARGET_DIR:-target}/debug
log=$(mktemp)
failed=()

# All processes of this run inherit this mark, so that leftovers can be identified.
export CORTADO_TEST_RUN=$$-$(date +%s)

leftovers() {
    local folder comm
    for folder in /proc/[0-9]*; do
        read -r comm 2>/dev/null <"$folder/comm" || continue
        [[ $comm == cortado* || $comm == chrom* ]] || continue
        if tr '\0' '\n' 2>/dev/null <"$folder/environ" | grep -qxF "CORTADO_TEST_RUN=$CORTADO_TEST_RUN"; then
            echo "${folder#/proc/}"
        fi
    done
}

finish() {
    local code=$?
    trap - EXIT INT TERM
    local pids
    pids=$(leftovers)
    # shellcheck disable=SC2086 # a list of numbers
    [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
    rm -f "$log"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step NAME COMMAND...: runs the command, prints its name and duration, and keeps its output for the
# summary. After a failure the next steps still run.
step() {
    local name=$1 began=$SECONDS result=''
    shift
    printf '\n== %s\n' "$name"
    if ! "$@" 2>&1 | tee -a "$log"; then
        failed+=("$name")
        result=', FAILED'
    fi
    printf -- '-- %s: %d s%s\n' "$name" $((SECONDS - began)) "$result"
}

# ---- requirements -------------------------------------------------------------------------------

if ! command -v cargo >/dev/null; then
    [[ -f $HOME/.cargo/env ]] && . "$HOME/.cargo/env"
fi
if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust from https://rustup.rs, open a new shell, and try again" >&2
    exit 1
fi
for component in fmt clippy; do
    if ! cargo "$component" --version >/dev/null 2>&1; then
        name=${component/#fmt/rustfmt}
        if ! command -v rustup >/dev/null || ! rustup component add "$name"; then
            echo "cargo $component is missing: install the Rust component $name" >&2
            exit 1
        fi
    fi
done
if ! command -v cc >/dev/null; then
    if command -v apt-get >/dev/null && [[ $(id -u) -eq 0 ]]; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy gcc libc6-dev
    else
        echo "a C compiler (cc) is missing: install gcc or clang, on Debian: apt-get install gcc libc6-dev" >&2
        exit 1
    fi
fi

# Some tests ask programs of others: a browser, Prometheus's tool, a Python package. Without them these tests
# say that they were skipped.
if [[ -z $quick ]] && command -v apt-get >/dev/null && [[ $(id -u) -eq 0 ]]; then
    packages=()
    command -v chromedriver >/dev/null || packages+=(chromium chromium-driver)
    command -v promtool >/dev/null || packages+=(prometheus)
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
    if [[ ${#packages[@]} -gt 0 ]]; then
        # Nothing of them is to run by itself.
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qy \
            --no-install-recommends "${packages[@]}"; } >/dev/null ||
            echo "these can't be installed; tests that need them are skipped: ${packages[*]}"
    fi
fi

# ---- the checks ---------------------------------------------------------------------------------

tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --no-fail-fast
    else
        cargo test --workspace --no-fail-fast --lib --bins --tests
    fi
}

# The tests that run in one process: without daemons, containers and kernel faults.
quick_tests() {
    local outside=(--exclude tests --exclude cortado)
    cargo test -q --workspace "${outside[@]}" --lib --bins --tests &&
        cargo test -q -p cortado --lib --bins
}

summary() {
    printf '\n== %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
    grep -E '^ *Summary |^test result: .* [1-9][0-9]* (passed|failed)|seeds passed' "$log" | sed 's/^ *//' || true
    if [[ ${#failed[@]} -gt 0 ]]; then
        printf 'FAILED: %s\n' "${failed[@]}"
        exit 1
    fi
    echo 'all passed'
    exit 0
}

no_leftovers() {
    local deadline=$((SECONDS + 10)) pids pid
    while pids=$(leftovers) && [[ -n $pids && $SECONDS -lt $deadline ]]; do sleep 0.2; done
    if [[ -n $pids ]]; then
        echo "these processes outlived the tests that started them:"
        for pid in $pids; do
            echo "  $pid: $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")"
        done
        return 1
    fi
    echo "no process left behind"
}

# Checks that docs/dependencies.md lists every crate that a manifest names. If cargo-deny is
# installed, it checks the rest (advisories only if their database can be reached).
dependencies() {
    local crate missing=0
    for crate in $(cargo metadata --no-deps --format-version 1 |
        grep -o '"name":"[^"]*","source":"registry' | cut -d'"' -f4 | sort -u); do
        if ! grep -qE "^\\|.*\\b$crate\\b.*\\|" docs/dependencies.md; then
            echo "$crate is missing in docs/dependencies.md"
            missing=1
        fi
    done
    if ! cargo deny --version >/dev/null 2>&1; then
        echo 'skipped: cargo-deny is missing; cargo install --locked cargo-deny'
    elif ! cargo deny fetch >/dev/null 2>&1; then
        echo 'skipped: advisories, whose data base can not be reached'
        cargo deny --log-level error check bans licenses sources || missing=1
    else
        cargo deny --log-level error check || missing=1
    fi
    return "$missing"
}

locked() { cargo metadata --locked --format-version 1 >/dev/null; }

step 'lock file' locked
step 'format' cargo fmt --all --check
step 'lints' cargo clippy --workspace --all-targets -q -- -D warnings
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps -q
step 'build' cargo build --workspace --bins -q
step 'structure' scripts/structure.sh
if [[ -n $quick ]]; then
    step 'tests without processes' quick_tests
    step 'simulation, seeds 0..100' "$bin/simulate" --seeds 0..100
    summary
fi
step 'tests' tests
step 'documentation examples' cargo test --workspace --doc -q
step "simulation, seeds $seeds" "$bin/simulate" --seeds "$seeds"
step 'HTTP as described' env OPENAPI_BIN="$bin" scripts/openapi.sh
step "fuzzing, $fuzz_seconds s a target" scripts/fuzz.sh --seconds "$fuzz_seconds"
step 'dependencies' dependencies
step 'leftovers' no_leftovers
summary
