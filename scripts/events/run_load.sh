#!/usr/bin/env bash
# Sends synthetic events as fast as they are made and taken, and says how many a second were acknowledged
# and how many were counted.
#
#   scripts/events/run_load.sh
#   EVENTS=2000000 NODES=5 scripts/events/run_load.sh
#   DEMO_DIR=/elsewhere scripts/events/run_load.sh     folder of cluster and outputs, not ./demo/events
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

events=${EVENTS:-500000}

heading "Start ${NODES:-3} nodes, and the stream"
start "${NODES:-3}" --reviver none

heading "$events events as fast as they are taken"
began=$(date +%s.%N)
show cortado events publish --publisher load --rate 1000000 --count "$events"
acknowledged=$(date +%s.%N)
show cortado events stop
await_end
closed=$(date +%s.%N)
awk -v n="$events" -v a="$began" -v b="$acknowledged" -v c="$closed" 'BEGIN {
    printf "%d events/s acknowledged, %d events/s until all windows were published\n", n / (b - a), n / (c - a) }'

heading 'Every event is accounted for'
show cortado events check
