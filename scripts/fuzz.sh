#!/usr/bin/env bash
# Fuzzes the decoders of bytes from outside with libFuzzer, which varies its inputs by the code that
# they reach. Works with the stable toolchain; needs a C++ compiler.
#
#   scripts/fuzz.sh                          each target for 60 s
#   scripts/fuzz.sh --seconds 600 csv log    these two for 10 minutes each
#   scripts/fuzz.sh --list                   names of the targets
#
# Keeps useful inputs in target/fuzz/corpus for the next run. An input that breaks a promise ends
# the run; the script prints its path and the command that repeats it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=60
targets=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --seconds)
            seconds=${2:?--seconds needs a number}
            shift
            ;;
        --list) exec cargo run -q -p hostile --bin seeds ;;
        -h | --help)
            sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        -*)
            echo "unknown option $1; see --help" >&2
            exit 2
            ;;
        *) targets+=("$1") ;;
    esac
    shift
done

if ! command -v c++ >/dev/null; then
    echo "skipped: a C++ compiler (c++) is missing, which libFuzzer needs; on Debian: apt-get install g++"
    exit 0
fi
folder=$PWD/target/fuzz

# The compiler pass that cargo-fuzz uses, without the address sanitizer: this project has no unsafe
# code, and only nightly toolchains have the sanitizer. The pass applies to the crates of this
# project, and to code of other crates that is compiled into them. Other crates are the builds made
# for the tests.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
# Built with the whole workspace: alone it would have other features, and need a build of
# everything.
cargo build -q --workspace --bin seeds
mkdir -p "$folder"
cat >"$folder/rustc" <<END
#!/bin/sh
rustc=\$1
shift
case "\$CARGO_MANIFEST_DIR/ \$*" in
    *"build_script"* | *" proc-macro "*) ;;
    "$PWD"/*) exec "\$rustc" "\$@" $flags ;;
esac
exec "\$rustc" "\$@"
END
chmod +x "$folder/rustc"
RUSTC_WRAPPER=$folder/rustc cargo build -q --locked --manifest-path fuzz/Cargo.toml --bins \
    --target-dir "${CARGO_TARGET_DIR:-target}"
seeds=${CARGO_TARGET_DIR:-target}/debug/seeds
"$seeds" "$folder/seeds"
if [[ ${#targets[@]} -eq 0 ]]; then
    mapfile -t targets < <("$seeds")
fi

# At most 16 KiB of input, 10 s per input, 1 GiB of memory in all and 256 MiB at once. The
# allocation test of the crate checks more exactly what an input may cost.
limits=(-max_len=16384 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256)

# fuzz TARGET: runs a target, and prints a line about it.
fuzz() {
    local target=$1 input
    local program=${CARGO_TARGET_DIR:-target}/debug/$target corpus=$folder/corpus/$target
    local log=$folder/$target.log
    mkdir -p "$corpus" "$folder/artifacts"
    if ! "$program" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$folder/artifacts/$target-" "$corpus" "$folder/seeds/$target" \
        >"$log" 2>&1; then
        grep -v '^#' "$log" | tail -n 60 >&2
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        echo "$target FAILED with the input $input; the whole output is in $log" >&2
        echo "repeat it: $program $input" >&2
        return 1
    fi
    stat() { sed -n "s/^stat::$1: *//p" "$log"; }
    printf '%-14s %10s executions  %7s per second  %5s inputs kept  %5s MiB at most\n' "$target" \
        "$(stat number_of_executed_units)" "$(stat average_exec_per_sec)" \
        "$(find "$corpus" -type f | wc -l)" "$(stat peak_rss_mb)"
}

for target in "${targets[@]}"; do
    if [[ ! -x ${CARGO_TARGET_DIR:-target}/debug/$target ]]; then
        echo "there is no target $target; see --list" >&2
        exit 2
    fi
done
# As many targets at a time as there are cores.
running=0 failed=0
for target in "${targets[@]}"; do
    if ((running == $(nproc))); then
        wait -n || failed=1
        running=$((running - 1))
    fi
    fuzz "$target" &
    running=$((running + 1))
done
while ((running > 0)); do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
