#!/usr/bin/env bash
# Shows Cortado at work: five nodes, an upload during which a node is killed, and exact reports.
#
#   scripts/demo.sh
#   DEMO_DIR=/elsewhere scripts/demo.sh     folder of data, cluster and results, not ./demo
#
# After the build, the demo takes less than a minute. It stops everything it has started, also after
# Ctrl-C. The dataset and the results stay in the folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

demo=${DEMO_DIR:-demo}
cluster=$demo/cluster
data=$demo/data
results=$demo/results
bin=${CARGO_TARGET_DIR:-target}/release
kill_at=40    # per cent of the upload

# Upload rate in bytes per second, slow enough to watch.
export CORTADO_UPLOAD_RATE=${CORTADO_UPLOAD_RATE:-60000000}
export CORTADO_CLUSTER=$cluster
unset CORTADO_CONNECT

upload_pid=''
work=''

heading() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || heading() { printf '\n%s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$bin/$@"; }
fail() { echo "demo: $*" >&2; exit 1; }

finish() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $upload_pid ]]; then
        kill -KILL "$upload_pid" 2>/dev/null || true
        wait "$upload_pid" 2>/dev/null || true
    fi
    if [[ -f $cluster/cluster.toml ]]; then
        heading 'Stop everything'
        "$bin/cortado" local down --dir "$cluster" --wipe || code=1
    fi
    [[ -z $work ]] || rm -rf "$work"
    [[ $code -eq 0 ]] && printf 'The reports are in %s.\n' "$results"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Adds up the tables in `cortado status --json`: prints the number of durable batches, and how many
# per cent of the bytes are uploaded.
tables() {
    "$bin/cortado" "$@" --json --timeout 2 2>/dev/null | awk -F'[:,]' '
        /"state":/ { over = !/uploading|queued/ }
        /"batches":/ { batches += $2 }
        /"bytes":/ { bytes += $2 }
        /"total_bytes":/ { total += $2 }
        END { print batches + 0, over ? 100 : total ? int(100 * bytes / total) : 0 }'
}

# Prints the coordinator of a job.
coordinator_of() { "$bin/cortado" status "$1" --json | sed -n 's/.*"coordinator": "\(.*\)".*/\1/p'; }

# Prints the addresses for clients of the live nodes, as one node sees them.
alive() { "$bin/cortado" "$@" nodes | awk '$2 == "alive" { print $3 }'; }

heading 'Build'
command -v cargo >/dev/null || fail 'cargo is missing: install Rust from https://rustup.rs'
cargo build --release --bin cortado --bin cortado-node
echo "\`cortado\` in what follows is $bin/cortado"
work=$(mktemp -d)
mkdir -p "$demo"
SECONDS=0

if [[ ! -f $data/complete ]]; then
    heading 'Make a dataset: two months of a chain of coffee shops'
    rm -rf "$data"
    show cortado gen coffee --out "$data" >"$work/gen"
    head -n 1 "$work/gen"
    touch "$data/complete"
fi

heading 'Start five nodes'
if [[ -f $cluster/cluster.toml ]]; then
    "$bin/cortado" local down --dir "$cluster" --wipe >/dev/null
fi
# Without this, its peers start a dead node at once; the demo shows what it misses.
export CORTADO_REVIVER=none
show cortado local up --dir "$cluster" --nodes 5

heading "Upload, and kill a node at $kill_at %"
rm -rf "$results"
echo "\$ cortado run coffee --data $data --out $results &"
"$bin/cortado" run coffee --data "$data" --out "$results" >"$work/run" &
upload_pid=$!
while [[ ! -s $work/run ]]; do
    kill -0 "$upload_pid" 2>/dev/null || fail 'the upload has ended early'
done
read -r job <"$work/run"
while read -r had percent < <(tables status "$job"); [[ $percent -lt $kill_at ]]; do
    kill -0 "$upload_pid" 2>/dev/null || fail 'the upload has ended early'
done
[[ $percent -lt 100 ]] || fail 'the upload was over before a node could be killed: CORTADO_UPLOAD_RATE=30000000 slows it down'
victim=$(coordinator_of "$job")
"$bin/cortado" local kill "$victim" --dir "$cluster" >/dev/null
echo
echo "$victim, which drives the job, was killed (SIGKILL) at $percent %, with $had batches on its disk"
wait "$upload_pid" || fail 'the job failed'
upload_pid=''

heading 'The four reports'
for file in q1 q2_quantity q2_revenue q3 q4; do
    echo "$file.csv, $(($(wc -l <"$results/$file.csv") - 1)) rows:"
    head -n 4 "$results/$file.csv" | sed 's/^/    /'
done

heading 'The receipt'
tail -n 1 "$work/run"

heading 'The same reports, computed again in one process'
show cortado verify "$job" --recompute "$data"

heading "Start $victim again, and watch it catch up"
show cortado nodes
read -r all _ < <(tables status "$job")
address=$("$bin/cortado" nodes | awk -v node="$victim" '$1 == node { print $3 }')
show cortado local start "$victim" --dir "$cluster"

# Prints how many entries the other nodes still have to hand over to the victim. Each node knows its
# own part.
to_hand_over() {
    local other
    for other in $(alive); do
        "$bin/cortado" --connect "$other" ring --json 2>/dev/null
    done | awk -F'[:,]' -v node="\"$victim\"" '
        /"entries":/ { entries = $2 }
        /"to":/ && index($0, node) { left += entries }
        END { print left + 0 }'
}

# The victim is the job's coordinator again, so it answers from its own ledgers.
caught_up() {
    read -r has _ < <(tables --connect "$address" status "$job")
    [[ $has == "$all" && $(coordinator_of "$job") == "$victim" && $(to_hand_over) == 0 ]] &&
        [[ $(alive --connect "$address" | wc -l) -eq 5 ]]
}
began=${EPOCHREALTIME/./}
deadline=$((SECONDS + 30))
until caught_up; do
    [[ $SECONDS -lt $deadline ]] || fail "$victim does not catch up"
done
echo "$victim had $had batches when it was killed; $(((${EPOCHREALTIME/./} - began) / 1000)) ms after it answers again it has all $has"
show cortado nodes
rm -rf "$demo/again"
show cortado --connect "$address" result "$job" --out "$demo/again" 2>/dev/null
diff -r "$results" "$demo/again" || fail "$victim gives another answer"
rm -rf "$demo/again"
echo "$victim gives the same reports, byte for byte."
heading "Done in $SECONDS s"
