#!/usr/bin/env bash
# Kills nodes, cuts networks and hangs disks at random while two publishers send, kills a publisher
# too, and then checks every event. Exit code 4 says that something was lost or counted twice.
#
#   scripts/events/run_chaos.sh
#   RUNS=10 SEED=100 scripts/events/run_chaos.sh       ten runs, with seeds 100 to 109
#   DEMO_DIR=/elsewhere scripts/events/run_chaos.sh    folder of cluster and outputs, not ./demo/events
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rate=${RATE:-1000}
seconds=${SECONDS_OF_EVENTS:-30}
seed=${SEED:-1}

publish() {
    exec "$bin/cortado" events publish --publisher "$1" --rate "$rate" --for "${seconds}s" --seed "$seed" \
        --duplicates 0.02 --invalid 0.01 --out-of-order 1 --timeout 120
}

for ((run = 0; run < ${RUNS:-1}; run++)); do
    heading "Run with seed $seed: five nodes, two publishers, trouble for $seconds s"
    start 5 --allow-chaos
    publish north & north=$!
    publish south & south=$!
    pids=("$north" "$south")
    "$bin/cortado" chaos run --seed "$seed" --minutes "$(awk -v s="$seconds" 'BEGIN { print s / 60 }')" >"$demo/chaos-$seed.log" 2>&1 & chaos=$!
    pids+=("$chaos")
    await 1
    kill -KILL "$south"
    wait "$south" 2>/dev/null || true
    publish south & south=$!
    pids=("$north" "$south" "$chaos")
    wait "$north" "$south"
    wait "$chaos" || fail "the trouble did not end: see $demo/chaos-$seed.log"
    pids=()
    show cortado events stop
    await_end
    show cortado events check
    received=$(count received)
    [[ $received -eq $((2 * rate * seconds)) ]] || fail "$received events were received"
    end_all
    seed=$((seed + 1))
done
