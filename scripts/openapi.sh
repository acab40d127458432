#!/usr/bin/env bash
# Asks a node everything that its OpenAPI description allows, and much that it does not, with values that
# schemathesis makes up (a Python package, which pip fetches). Fails if an answer is not as described.
#
#   scripts/openapi.sh
#   SECONDS_LONG=600 scripts/openapi.sh    longer than 20 s
#   OPENAPI_BIN=DIR scripts/openapi.sh     programs built before
set -euo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=4.32.5
[[ -n ${OPENAPI_BIN:-} ]] || cargo build -q -p cortado -p cortado-node
bin=$(realpath "${OPENAPI_BIN:-${CARGO_TARGET_DIR:-target}/debug}")
folder=$(mktemp -d)
export CORTADO_CLUSTER=$folder/cluster
finish() {
    local code=$?
    trap - EXIT INT TERM
    [[ ! -d $CORTADO_CLUSTER ]] || "$bin/cortado" local down --dir "$CORTADO_CLUSTER" --wipe >/dev/null || true
    rm -rf "$folder"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! python3 -m venv "$folder/venv" || ! "$folder/venv/bin/pip" install -q "schemathesis==$version"; then
    echo "schemathesis can't be had here (Python with venv, and PyPI): the description was not checked with it"
    exit 0
fi

# A job and a stream, so that there is something to ask for.
"$bin/cortado" local up --dir "$CORTADO_CLUSTER" --nodes 3 --reviver none >/dev/null 2>&1
job=$("$bin/cortado" run coffee --data data/sample --out "$folder/out" --json 2>/dev/null | sed -n '1s/.*"job": *"\([^"]*\)".*/\1/p')
"$bin/cortado" events start >/dev/null
"$bin/cortado" events publish --rate 500 --for 8s --invalid 0.02 >/dev/null 2>&1
node=$("$bin/cortado" nodes --json | sed -n 's/.*"http_addr": "\(.*\)".*/\1/p' | head -n 1)

# What is not there is asked for by half of the operations, what is there by the others.
cat >"$folder/schemathesis.toml" <<TOML
[[operations]]
include-path = "/api/v1/streams/{name}/status"
parameters = { "path.name" = "events" }

[[operations]]
include-path = "/api/v1/streams/{name}/metrics"
parameters = { "path.name" = "events" }

[[operations]]
include-path = "/api/v1/streams/{name}/{output}"
parameters = { "path.name" = "events", "path.output" = "analytics.window" }
# Not every text is a cursor.
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/v1/jobs/{id}"
parameters = { "path.id" = "$job" }

[[operations]]
include-path = "/api/v1/jobs/{id}/rejects"
parameters = { "path.id" = "$job" }
TOML
cd "$folder"
"$folder/venv/bin/schemathesis" --config-file "$folder/schemathesis.toml" run "http://$node/api/v1/openapi.json" \
    --max-time "${SECONDS_LONG:-20}" --warnings off --no-color
