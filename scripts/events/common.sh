# Sourced by the scripts beside it: builds the programs, and sets what they share. Each script starts a
# cluster of its own and stops everything it has started, also after Ctrl-C.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

demo=${DEMO_DIR:-demo/events}
cluster=$demo/cluster
bin=${CARGO_TARGET_DIR:-target}/release
export CORTADO_CLUSTER=$cluster
unset CORTADO_CONNECT

pids=()

heading() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || heading() { printf '\n%s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$bin/$@"; }
fail() { echo "${0##*/}: $*" >&2; exit 1; }

# Kills what runs in the background, and stops the cluster.
end_all() {
    local pid
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=()
    [[ ! -f $cluster/cluster.toml ]] || "$bin/cortado" local down --dir "$cluster" --wipe
}

finish() {
    local code=$?
    trap - EXIT INT TERM
    heading 'Stop everything'
    end_all || code=1
    [[ $code -ne 0 ]] || printf 'The outputs are in %s.\n' "$demo"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NODES [OPTIONS]: a cluster of so many nodes, and the stream.
start() {
    mkdir -p "$demo"
    [[ ! -e $cluster ]] || fail "$cluster exists: cortado local down --dir $cluster --wipe"
    show cortado local up --dir "$cluster" --nodes "$@"
    show cortado events start
}

# field NAME: a number or a text of `cortado events status`.
field() {
    "$bin/cortado" events status --json --timeout 5 2>/dev/null |
        awk -F'[:,]' -v name="\"$1\"" '$1 ~ name { gsub(/[ "]/, "", $2); print $2; exit }'
}

# await LEAST: waits until so many window rows are published.
await() {
    local deadline=$((SECONDS + 60)) published
    until published=$(field published) && [[ ${published:-0} -ge $1 ]]; do
        [[ $SECONDS -lt $deadline ]] || fail "no $1 windows within a minute"
        sleep 0.2
    done
}

# await_end: waits until the stream has ended.
await_end() {
    local deadline=$((SECONDS + 120))
    until [[ $(field ended) == true ]]; do
        [[ $SECONDS -lt $deadline ]] || fail 'the stream did not end within two minutes'
        sleep 0.2
    done
}

# count NAME: a count of `cortado events check`.
count() {
    "$bin/cortado" events check --counts --json | awk -F'[:,]' -v name="\"$1\"" '$1 ~ name { print $2 + 0 }'
}

# audit: writes the audit file, and shows what counts in which metric.
audit() {
    rm -f "$demo/audit.db"
    show cortado events audit --out "$demo/audit.db"
    show cortado events audit --out "$demo/audit.db" --sql \
        'SELECT metric_id, contribution_type, count(*) AS events FROM trace GROUP BY 1, 2'
}

command -v cargo >/dev/null || . "$HOME/.cargo/env"
cargo build --release -q -p cortado -p cortado-node
