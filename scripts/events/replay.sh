#!/usr/bin/env bash
# Publishes events, late ones among them, and counts windows a second time: those of a time, and those of
# a publisher's batches. Nothing differs.
#
#   scripts/events/replay.sh
#   DEMO_DIR=/elsewhere scripts/events/replay.sh       folder of cluster and outputs, not ./demo/events
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

heading 'Start three nodes, and the stream'
start 3 --reviver none

heading 'Events, and then some that are late'
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
show cortado events publish --publisher first --rate 2000 --for 15s --duplicates 0.02 --invalid 0.01
show cortado events publish --publisher late --rate 500 --for 5s --out-of-order 15 --backfill
show cortado events stop
await_end

heading 'The windows since the beginning, counted a second time'
show cortado events replay --from "$began" --out "$demo/replay.ndjson"

heading 'The windows that the late events lie in'
show cortado events replay --publisher late
head -n 2 "$demo/replay.ndjson" | cut -c 1-200
