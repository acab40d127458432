#!/usr/bin/env bash
# Shows a stream of events: two publishers with copies, disorder and bad events; a node and a publisher
# are killed meanwhile; then every event is accounted for.
#
#   scripts/events/run_demo.sh
#   RATE=2000 SECONDS_OF_EVENTS=60 scripts/events/run_demo.sh
#   DEMO_DIR=/elsewhere scripts/events/run_demo.sh     folder of cluster and outputs, not ./demo/events
#
# After the build, the demo takes about a minute. It stops everything it has started, also after
# Ctrl-C. The outputs stay in the folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

demo=${DEMO_DIR:-demo/events}
rate=${RATE:-1000}
seconds=${SECONDS_OF_EVENTS:-30}
cluster=$demo/cluster
bin=${CARGO_TARGET_DIR:-target}/release
export CORTADO_CLUSTER=$cluster
unset CORTADO_CONNECT

pids=()

heading() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || heading() { printf '\n%s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$bin/$@"; }
fail() { echo "demo: $*" >&2; exit 1; }

finish() {
    local code=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [[ -f $cluster/cluster.toml ]]; then
        heading 'Stop everything'
        "$bin/cortado" local down --dir "$cluster" --wipe || code=1
    fi
    [[ $code -eq 0 ]] && printf 'The outputs are in %s.\n' "$demo"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

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

# Runs in the background: its process id is that of the publisher.
publish() {
    exec "$bin/cortado" events publish --publisher "$1" --rate "$rate" --for "${seconds}s" --seed 1 \
        --duplicates 0.02 --invalid 0.01 --out-of-order 1 "${@:2}"
}

command -v cargo >/dev/null || . "$HOME/.cargo/env"
cargo build --release -q -p cortado -p cortado-node
mkdir -p "$demo"
rm -f "$demo/audit.db"
[[ ! -e $cluster ]] || fail "$cluster exists: cortado local down --dir $cluster --wipe"

heading 'Start five nodes, and the stream'
show cortado local up --dir "$cluster" --nodes 5 --reviver none
show cortado events start

heading 'Two publishers, and a reader'
publish north & north=$!
publish south & south=$!
"$bin/cortado" events tail analytics.window >"$demo/windows.ndjson" & reader=$!
pids=("$north" "$south" "$reader")
await 1
coordinator=$(field coordinator)
show cortado local kill "$coordinator" --dir "$cluster"
echo "$coordinator, which closes the windows, was killed (SIGKILL)"
await 2
kill -KILL "$north"
wait "$north" 2>/dev/null || true
echo 'publisher north was killed (SIGKILL); it goes on under its name'
publish north & north=$!
pids=("$north" "$south" "$reader")
wait "$north" "$south"

heading 'End the stream: the last windows close'
show cortado events stop
wait "$reader"
pids=()
show cortado events status

heading 'Every event is accounted for'
show cortado events check
for output in metrics.daily deadletter.validation; do
    "$bin/cortado" events tail "$output" >"$demo/$output.ndjson"
done
show cortado events replay --from 2000-01-01T00:00:00Z
metric=$(head -n 1 "$demo/metrics.daily.ndjson" | sed 's/.*"metric_id":"\([^"]*\)".*/\1/')
echo "\$ cortado events trace $metric | head -n 2"
"$bin/cortado" events trace "$metric" >"$demo/trace.txt"
head -n 2 "$demo/trace.txt"
show cortado events audit --out "$demo/audit.db"
show cortado events audit --out "$demo/audit.db" --sql \
    "SELECT metric_id, contribution_type, count(*) AS events FROM trace GROUP BY 1, 2"
# The last revision of each window.
windows=$(awk '{ match($0, /"window_start":"[^"]*"/); key = substr($0, RSTART, RLENGTH)
    match($0, /"total":[0-9]+/); total[key] = substr($0, RSTART + 8, RLENGTH - 8) }
    END { for (key in total) sum += total[key]; print sum + 0 }' "$demo/windows.ndjson")
counted=$("$bin/cortado" events check --counts --json | awk -F'[:,]' '/"counted"/ { print $2 + 0 }')
received=$("$bin/cortado" events check --counts --json | awk -F'[:,]' '/"received"/ { print $2 + 0 }')
[[ $windows -eq $counted ]] || fail "the reader's windows have $windows events, $counted are counted"
[[ $received -eq $((2 * rate * seconds)) ]] || fail "$received events were received"
echo "the reader saw $windows events in its windows, as many as are counted; both publishers sent"
echo "$((2 * rate * seconds)) events, copies and bad ones among them, and as many were received"
heading 'A dead letter'
head -n 1 "$demo/deadletter.validation.ndjson"
