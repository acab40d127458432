#!/usr/bin/env bash
# Uploads a long dataset (3 GB) to five local nodes and prints the peak memory of each process: the
# client, each node, and `cortado verify --recompute`. Before that, it does the same with a twelfth
# of the dataset, to show what grows with the upload. Fails if a limit is exceeded.
#
#   scripts/long.sh                       takes some minutes and about 4 GB of disk
#   scripts/long.sh --months 6            a shorter one: 136 MB a month
#   LONG_DIR=/elsewhere scripts/long.sh   LONG_BIN=DIR: programs built before
#
# Deletes its files and stops every process it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

months=24
client_limit_mib=200
verify_limit_mib=600
while [[ $# -gt 0 ]]; do
    case $1 in
        --months)
            months=${2:?--months needs a number}
            shift
            ;;
        *)
            sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            [[ $1 == -h || $1 == --help ]] && exit 0 || exit 2
            ;;
    esac
    shift
done

target=${CARGO_TARGET_DIR:-target}
work=${LONG_DIR:-$target/long}
bin=${LONG_BIN:-$target/release}
[[ -n ${LONG_BIN:-} ]] || cargo build --release -q --bin cortado --bin cortado-node
cluster=$work/cluster
export CORTADO_CLUSTER=$cluster

finish() {
    local code=$?
    trap - EXIT INT TERM
    [[ -z ${running:-} ]] || kill "$running" 2>/dev/null || true
    [[ ! -f $cluster/cluster.toml ]] || "$bin/cortado" local down --dir "$cluster" --wipe >/dev/null || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints a process's peak memory in MiB (VmHWM, see proc(5)).
peak() { awk '/^VmHWM/ { found = 1; printf "%d", $2 / 1024 } END { exit !found }' "/proc/$1/status" 2>/dev/null; }

# watched COMMAND...: runs the command. Sets `most` to its peak memory, as of 50 ms before its end,
# and `took` to its duration.
watched() {
    local began=${EPOCHREALTIME/./} now
    "$@" >"$work/stdout" 2>"$work/stderr" &
    running=$!
    most=0
    while now=$(peak "$running"); do
        most=$now
        sleep 0.05
    done
    if ! wait "$running"; then
        cat "$work/stderr" >&2
        return 1
    fi
    running=''
    took=$(((${EPOCHREALTIME/./} - began) / 1000000))
}

failed=0
# row NAME MIB LIMIT: prints a line of the table.
row() {
    local verdict=''
    if [[ -n ${3:-} ]]; then
        verdict="limit $3"
        [[ $2 -le $3 ]] || { verdict="OVER THE LIMIT of $3"; failed=1; }
    fi
    printf '  %-28s %6d MiB   %s\n' "$1" "$2" "$verdict"
}

# measure MONTHS: uploads a dataset of so many months, and prints the table.
measure() {
    local list=() data=$work/data month pid node job
    for ((month = 0; month < $1; month++)); do
        list+=("$(printf '%d%02d' $((2024 + month / 12)) $((month % 12 + 1)))")
    done
    mkdir -p "$work"
    "$bin/cortado" gen coffee --out "$data" --months "$(IFS=,; echo "${list[*]}")" >/dev/null 2>&1
    local bytes
    bytes=$(du -sb --apparent-size "$data" | cut -f1)
    printf '\n%d months, %d MB\n' "$1" $((bytes / 1000000))
    "$bin/cortado" local up --dir "$cluster" --nodes 5 >/dev/null 2>&1
    for node in 1 2 3 4 5; do
        pid=$(sed -n 's/^pid = //p' "$cluster/node-$node/pid")
        printf '  %-28s %6d MiB\n' "node-$node before" "$(peak "$pid")"
    done
    watched "$bin/cortado" run coffee --data "$data" --out "$work/reports"
    job=$(head -n 1 "$work/stdout")
    row "cortado run ($took s)" "$most" "$client_limit_mib"
    for node in 1 2 3 4 5; do
        pid=$(sed -n 's/^pid = //p' "$cluster/node-$node/pid")
        row "node-$node" "$(peak "$pid")"
    done
    watched "$bin/cortado" verify "$job" --recompute "$data"
    row "cortado verify ($took s)" "$most" "$verify_limit_mib"
    tail -n 1 "$work/stdout"
    printf '  %-28s %6d MiB of log on five nodes\n' '' \
        "$(($(du -sk "$cluster"/node-*/data | awk '{ sum += $1 } END { print sum }') / 1024))"
    "$bin/cortado" local down --dir "$cluster" --wipe >/dev/null 2>&1
    rm -rf "$work"
}

measure $(((months + 11) / 12))
measure "$months"
exit "$failed"
