#!/usr/bin/env bash
# Makes the pictures of the live page from a real run: five nodes, jobs, a stream of events. The
# supervisor and the stream's coordinator are killed, and revived by their peers. Each view, light and
# dark, on a wide screen and on a phone, becomes results/page/VIEW-COLOURS-SCREEN.png.
#
#   scripts/screenshots.sh                         takes about 10 minutes
#   scripts/screenshots.sh --windows 20            shorter: so many windows of 5 s, not 100
#   scripts/screenshots.sh --out DIR               another folder
#   SCREENSHOTS_BIN=DIR scripts/screenshots.sh     programs built before
#
# Needs curl, python3, Chromium and its driver (Debian: chromium, chromium-driver). pngquant and
# optipng make the pictures smaller if they are installed. Deletes its cluster and stops every process
# it started, also after Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

windows=100
out=results/page
while [[ $# -gt 0 ]]; do
    case $1 in
        --windows)
            windows=${2:?--windows needs a number}
            shift
            ;;
        --out)
            out=${2:?--out needs a folder}
            shift
            ;;
        *)
            sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            [[ $1 == -h || $1 == --help ]] && exit 0 || exit 2
            ;;
    esac
    shift
done

heading() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || heading() { printf '\n%s\n' "$*"; }
fail() { echo "screenshots: $*" >&2; exit 1; }

[[ $windows =~ ^[1-9][0-9]*$ && $windows -ge 10 && $windows -le 120 ]] ||
    fail "--windows $windows: the page shows up to 120 windows, and 10 are needed for the two kills"
for program in chromium chromedriver curl python3; do
    command -v "$program" >/dev/null ||
        fail "$program is missing: apt-get install chromium chromium-driver curl python3"
done

bin=${SCREENSHOTS_BIN:-${CARGO_TARGET_DIR:-target}/release}
[[ -n ${SCREENSHOTS_BIN:-} ]] || cargo build --release -q --bin cortado --bin cortado-node
show() { printf '$ cortado %s\n' "$*"; "$bin/cortado" "$@"; }
work=$(mktemp -d)
cluster=$work/cluster
export CORTADO_CLUSTER=$cluster
unset CORTADO_CONNECT CORTADO_UPLOAD_RATE CORTADO_REVIVER

pids=()
finish() {
    local code=$? pid
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [[ ! -f $cluster/cluster.toml ]] || "$bin/cortado" local down --dir "$cluster" --wipe >/dev/null || code=1
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# until_true SECONDS WHAT COMMAND...: waits until the command succeeds.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [[ $SECONDS -lt $deadline ]] || fail "waited in vain for $what"
        sleep 0.2
    done
}

# member NODE FIELD: a field of a member in `cortado nodes --json`.
member() {
    "$bin/cortado" nodes --json --timeout 5 2>/dev/null | awk -F': ' -v node="\"$1\"" -v field="\"$2\"" '
        { gsub(/,$/, "") }
        $1 ~ /"id"/ { found = $2 == node }
        found && $1 ~ field { gsub(/"/, "", $2); print $2; exit }'
}

# closed: the number of windows in /data, which any node answers.
closed() {
    local page
    for page in "${pages[@]}"; do
        if curl -fs --max-time 2 "http://$page/data" >"$work/data"; then
            # The newest window stands there twice.
            echo $(($(grep -o '"window_start"' "$work/data" | wc -l) - 1))
            return
        fi
    done
    echo 0
}
has_windows() { [[ $(closed) -ge $1 ]]; }
await_windows() {
    until_true $((5 * windows + 120)) "$1 windows" has_windows "$1"
    echo "$1 windows are closed"
}

# kill_and_await NODE WHAT: kills a node, and waits until another process of it is a member.
kill_and_await() {
    local before
    before=$(member "$1" generation)
    "$bin/cortado" local kill "$1" --dir "$cluster" >/dev/null
    echo "$1, which $2, was killed (SIGKILL)"
    is_back() { [[ $(member "$1" state) == alive && $(member "$1" generation) != "$2" ]]; }
    until_true 60 "$1 to be back" is_back "$1" "$before"
    echo "$1 is back"
}

# publish NAME OPTIONS: runs in the background, up to the end of this script.
publish() {
    "$bin/cortado" events publish --publisher "$@" --duplicates 0.02 --out-of-order 1 >/dev/null 2>&1 &
    pids+=("$!")
}

# uploaded JOB: how many per cent of it are uploaded.
uploaded() {
    "$bin/cortado" status "$1" --json --timeout 5 2>/dev/null | awk -F'[:,]' '
        /"bytes":/ { bytes += $2 }
        /"total_bytes":/ { total += $2 }
        END { print total ? int(100 * bytes / total) : 0 }'
}
is_uploaded() { [[ $(uploaded "$1") -ge $2 ]]; }

heading 'Start five nodes'
show local up --dir "$cluster" --nodes 5
mapfile -t pages < <("$bin/cortado" nodes --json | sed -n 's/.*"http_addr": "\(.*\)".*/\1/p')
[[ ${#pages[@]} -eq 5 ]] || fail "${#pages[@]} of 5 nodes have a page"

heading 'Start the stream, and three publishers'
show events start
publish north --rate 160 --seed 3 --invalid 0.015 --burst-probability 0.10 --burst-size 800
publish south --rate 60 --seed 5 --invalid 0.01 --burst-probability 0.12 --burst-size 480
publish harbour --rate 40 --seed 7 --invalid 0.02 --for "$((5 * windows / 2))s"

heading 'Run three jobs'
"$bin/cortado" gen coffee --out "$work/large" --months 202401,202402 --transactions-per-month 60000 --users 20000 >/dev/null 2>&1
for data in data/sample "$work/large" data/sample; do
    "$bin/cortado" run coffee --data "$data" >"$work/run" 2>/dev/null
    tail -n 1 "$work/run"
    [[ $data == data/sample ]] || read -r done_job <"$work/run"
done

heading "Wait for $windows windows of 5 s"
# Late enough that the time line, which shows five minutes, has both. The supervisor first: a revival
# is in the log of the node that did it, and a killed node's log is gone.
await_windows $((windows > 40 ? windows - 36 : 4))
kill_and_await "$("$bin/cortado" nodes --json | awk -F'"' '/"node":/ { print $4; exit }')" 'supervises the nodes'
await_windows $((windows > 40 ? windows - 16 : 8))
kill_and_await "$("$bin/cortado" events status --json | sed -n 's/.*"coordinator": "\(.*\)".*/\1/p')" 'coordinates the stream'
await_windows "$windows"

heading 'Upload another dataset slowly'
size=$(du -sb "$work/large" | cut -f 1)
"$bin/cortado" run coffee --data "$work/large" --upload-rate $((size / 60)) >"$work/slow" 2>/dev/null &
pids+=("$!")
until_true 30 'the id of the job' test -s "$work/slow"
read -r job <"$work/slow"
until_true 60 'half of the upload' is_uploaded "$job" 45
echo "$(uploaded "$job") % are uploaded"

heading 'Take the pictures'
mkdir -p "$out" "$work/browser"
# In the background, so that a signal is handled at once.
python3 scripts/screenshots.py --page "${pages[0]}" --job "$job" --done "$done_job" \
    --windows $((windows < 100 ? windows : 100)) --out "$out" --folder "$work/browser" &
pids+=("$!")
wait "$!"
