#!/usr/bin/env bash
# Compares the validation of events with the JSON-Schema-Test-Suite for draft 2020-12. The suite comes
# with the source archive of the Python package jsonschema, which pip fetches.
#
#   scripts/schema_suite.sh
#   JSON_SCHEMA_SUITE=FOLDER scripts/schema_suite.sh    with a copy of tests/draft2020-12 that is there
set -euo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=4.26.0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [[ -z ${JSON_SCHEMA_SUITE:-} ]]; then
    if ! python3 -m pip download -q --no-deps --no-binary :all: "jsonschema==$version" -d "$folder"; then
        echo "the suite can't be fetched: install Python with pip, or set JSON_SCHEMA_SUITE to a copy" >&2
        exit 1
    fi
    tar -xzf "$folder/jsonschema-$version.tar.gz" -C "$folder"
    JSON_SCHEMA_SUITE=$folder/jsonschema-$version/json/tests/draft2020-12
fi
export JSON_SCHEMA_SUITE
cargo test -q -p cortado-stream --lib -- --ignored --nocapture suite
