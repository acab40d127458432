#!/usr/bin/env bash
# Shows a stream of events: two publishers with bursts, copies, disorder and bad events; a node and a
# publisher are killed meanwhile; then every event is accounted for.
#
#   scripts/events/run_demo.sh
#   RATE=2000 SECONDS_OF_EVENTS=60 scripts/events/run_demo.sh
#   DEMO_DIR=/elsewhere scripts/events/run_demo.sh     folder of cluster and outputs, not ./demo/events
#
# After the build, the demo takes about a minute. It stops everything it has started, also after
# Ctrl-C. The outputs stay in the folder.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rate=${RATE:-1000}
seconds=${SECONDS_OF_EVENTS:-30}

# Runs in the background: its process id is that of the publisher.
publish() {
    exec "$bin/cortado" events publish --publisher "$1" --rate "$rate" --for "${seconds}s" --seed 1 \
        --duplicates 0.02 --invalid 0.01 --out-of-order 1 --burst-probability 0.05 --burst-size 300
}

heading 'Start five nodes, and the stream'
start 5 --reviver none

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
for output in metrics.daily alerts.anomaly deadletter.validation; do
    "$bin/cortado" events tail "$output" >"$demo/$output.ndjson"
done
# The last revision of each window.
windows=$(awk '{ match($0, /"window_start":"[^"]*"/); key = substr($0, RSTART, RLENGTH)
    match($0, /"total":[0-9]+/); total[key] = substr($0, RSTART + 8, RLENGTH - 8) }
    END { for (key in total) sum += total[key]; print sum + 0 }' "$demo/windows.ndjson")
counted=$(count counted)
received=$(count received)
[[ $windows -eq $counted ]] || fail "the reader's windows have $windows events, $counted are counted"
[[ $received -eq $((2 * rate * seconds)) ]] || fail "$received events were received"
echo "the reader saw $windows events in its windows, as many as are counted; both publishers sent"
echo "$((2 * rate * seconds)) events, copies and bad ones among them, and as many were received"

heading 'Every metric is traced to its events'
metric=$(head -n 1 "$demo/metrics.daily.ndjson" | sed 's/.*"metric_id":"\([^"]*\)".*/\1/')
echo "\$ cortado events trace $metric | head -n 2"
"$bin/cortado" events trace "$metric" >"$demo/trace.txt"
head -n 2 "$demo/trace.txt"
audit

heading 'Counted a second time, nothing differs'
show cortado events replay --from 2000-01-01T00:00:00Z

heading 'A dead letter'
head -n 1 "$demo/deadletter.validation.ndjson"
if [[ -s $demo/alerts.anomaly.ndjson ]]; then
    heading 'An alert'
    head -n 1 "$demo/alerts.anomaly.ndjson" | cut -c 1-300
fi
