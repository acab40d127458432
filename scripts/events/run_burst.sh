#!/usr/bin/env bash
# A calm stream with a few bursts, and the alerts that they raise.
#
#   scripts/events/run_burst.sh
#   RATE=500 SECONDS_OF_EVENTS=180 scripts/events/run_burst.sh
#   DEMO_DIR=/elsewhere scripts/events/run_burst.sh    folder of cluster and outputs, not ./demo/events
#
# An alert needs twelve windows of 5 s before it, so the script takes a little more than a minute.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

heading 'Start three nodes, and the stream'
start 3 --reviver none

heading 'A minute and a half of events, some in bursts'
show cortado events publish --publisher bursts --rate "${RATE:-100}" --for "${SECONDS_OF_EVENTS:-90}s" \
    --burst-probability 0.1 --burst-size 200
show cortado events stop
await_end

heading 'The alerts'
"$bin/cortado" events tail alerts.anomaly >"$demo/alerts.anomaly.ndjson"
echo "$(wc -l <"$demo/alerts.anomaly.ndjson") alerts; the first ones:"
head -n 3 "$demo/alerts.anomaly.ndjson" | sed 's/"revisions":\[.*\]\],//'

heading 'Every event is accounted for'
show cortado events check
