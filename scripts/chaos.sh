#!/usr/bin/env bash
# Kills, pauses, cuts off and disturbs nodes of a cluster at random while clients upload. At the end
# it prints for each client that every result equals the recomputation (0 lost, 0 twice), and how
# long killed nodes were missed. The seed determines the faults; they are printed.
#
#   scripts/chaos.sh --minutes 3 --clients 4 --seed 7      five processes on this machine
#   scripts/chaos.sh --docker                              five containers (scripts/compose.sh)
#   scripts/chaos.sh --cluster PROFILE                     a cluster that is up, with --allow-chaos
#   scripts/chaos.sh --nodes 7 --only kill,pause           also: --runs 10, each with the next seed
#
# Removes a cluster that it has started when it ends, also after Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

nodes=5 seed=1 runs=1 where=local profile=''
options=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --minutes | --clients | --only) options+=("$1" "${2:?$1 needs a value}") && shift ;;
        --nodes) nodes=${2:?--nodes needs a number} && shift ;;
        --seed) seed=${2:?--seed needs a number} && shift ;;
        --runs) runs=${2:?--runs needs a number} && shift ;;
        --cluster) where=there profile=${2:?--cluster needs a profile directory} && shift ;;
        --docker) where=docker ;;
        --local) where=local ;;
        -h | --help) usage && exit 0 ;;
        *) echo "chaos: unknown argument '$1'; see scripts/chaos.sh --help" >&2 && exit 2 ;;
    esac
    shift
done

target=${CARGO_TARGET_DIR:-target}/release
if ! command -v cargo >/dev/null && [[ -f $HOME/.cargo/env ]]; then
    . "$HOME/.cargo/env"
fi
cargo build --release -q -p cortado -p cortado-node -p tests --bin cortado --bin cortado-node --bin chaos

work=$(mktemp -d)
project=cortado-chaos-$$
child=''

down() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $child ]]; then
        # The clients first, because they would try to reach the cluster for a while.
        pkill -TERM -P "$child" || true
        kill "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    case $where in
        there) [[ -z $child ]] || "$target/cortado" --cluster "$profile" chaos heal || true ;;
        local) "$target/cortado" local down --dir "$work/cluster" --wipe >/dev/null 2>&1 || true ;;
        docker) compose down --volumes --timeout 1 >/dev/null 2>&1 || true ;;
    esac
    rm -rf "$work"
    exit "$code"
}

compose() {
    local program=(docker compose)
    docker compose version >/dev/null 2>&1 || program=(docker-compose)
    "${program[@]}" --project-name "$project" --file "$work/compose.yml" "$@"
}

up() {
    case $where in
        local)
            profile=$work/cluster
            "$target/cortado" local up --dir "$profile" --nodes "$nodes" --allow-chaos >/dev/null
            ;;
        docker)
            profile=$work/compose
            # The ports differ from those of a cluster that may already run. The folder is made
            # here, so that the files that the cluster writes into it belong to this user.
            mkdir -p "$profile"
            CORTADO_ALLOW_CHAOS=true COMPOSE_DIR=$profile COMPOSE_FILE=$work/compose.yml \
                CLUSTER_NAME=$project IMAGE=cortado-chaos FIRST_PORT=${FIRST_PORT:-27402} HTTP_PORT=${HTTP_PORT:-25000} \
                scripts/compose.sh "$nodes" >/dev/null
            compose up --detach >/dev/null 2>&1
            ;;
    esac
}

trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# An image of the program that was just built, with its libraries.
[[ $where != docker ]] || PROGRAM=$target/cortado-node scripts/image.sh cortado-chaos >/dev/null
for ((run = 0; run < runs; run++)); do
    # Each run has its own cluster, because supervisors count how often they started a node.
    up
    # In the background, so that this script handles a signal at once.
    "$target/chaos" --cluster "$profile" --seed $((seed + run)) "${options[@]}" &
    child=$!
    wait "$child"
    child=''
    case $where in
        local) "$target/cortado" local down --dir "$work/cluster" --wipe >/dev/null ;;
        docker) compose down --volumes --timeout 1 >/dev/null 2>&1 && rm -rf "$profile" ;;
    esac
done
