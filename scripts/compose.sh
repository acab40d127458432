#!/usr/bin/env bash
# Writes a compose file for a cluster of N nodes on one host, with certificates, configurations and
# the profile for clients, and says what to do next.
#
#   scripts/compose.sh [N]                       5 nodes if not given
#   COMPOSE_DIR=/elsewhere scripts/compose.sh    certificates and profile there instead of ./compose
#   REVIVER=none scripts/compose.sh              without the engine's socket in the containers
#   IMAGE=registry/cortado scripts/compose.sh    that image instead of `cortado`
#   COMPOSE_FILE=/elsewhere/c.yml scripts/compose.sh   the compose file there
#
# The nodes bring each other back by the engine's socket, which is as good as root on this host; see
# docs/operations.md. Works with `docker compose` and with docker-compose 1.29.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nodes=${1:-5}
dir=${COMPOSE_DIR:-compose}
image=${IMAGE:-cortado}
reviver=${REVIVER:-docker}
name=${CLUSTER_NAME:-cortado}
first_port=${FIRST_PORT:-17402}
socket=${DOCKER_SOCKET:-/var/run/docker.sock}
file=${COMPOSE_FILE:-docker-compose.yml}

[[ $nodes =~ ^[1-9][0-9]*$ ]] || { echo 'usage: scripts/compose.sh [N]' >&2; exit 2; }
[[ $dir == /* ]] || dir=$PWD/$dir

cortado=${CORTADO:-${CARGO_TARGET_DIR:-target}/release/cortado}
if [[ ! -x $cortado ]]; then
    cargo build --release --bin cortado
fi
timing=lan
[[ $(nproc) -gt 4 ]] || timing=shared
published=$(for ((k = 0; k < nodes; k++)); do echo "127.0.0.1:$((first_port + 10 * k))"; done | paste -sd,)

"$cortado" init --dir "$dir" --name "$name" --nodes "$nodes" --published "$published" \
    --data /data --timing "$timing" --reviver "$reviver" >/dev/null

# Not root, but allowed to read its own key.
if [[ $(id -u) -eq 0 ]]; then
    user=65532:65532
    chown -R "$user" "$dir"/node-*
else
    user=$(id -u):$(id -g)
fi

{
    echo '# Written by scripts/compose.sh; run it again instead of editing this.'
    echo "version: '3.7'"
    echo
    echo 'services:'
    for ((k = 1; k <= nodes; k++)); do
        cat <<YAML
  node-$k:
    image: $image
    hostname: node-$k
    user: '$user'
    read_only: true
    cap_drop: [ALL]
    security_opt: ['no-new-privileges:true']
    # More than drain_seconds: whoever is killed while it hands over did not end on purpose.
    stop_grace_period: 30s
    labels:
      cortado.cluster: '$name'
      cortado.node: node-$k
    ports: ['127.0.0.1:$((first_port + 10 * (k - 1))):7402/udp']
    volumes:
      - '$dir/node-$k:/etc/cortado:ro'
      - 'data-$k:/data'
YAML
        if [[ $reviver == docker ]]; then
            echo "      - '$socket:/var/run/docker.sock'"
            echo "    group_add: ['$(stat -c %g "$socket")']"
        fi
    done
    echo
    echo 'volumes:'
    for ((k = 1; k <= nodes; k++)); do echo "  data-$k:"; done
} >"$file"

cat <<TEXT
$nodes nodes in $file; the profile is $dir
  docker-compose up -d            (or docker compose up -d; the image: scripts/image.sh)
  cortado --cluster $dir nodes
TEXT
