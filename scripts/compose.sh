#!/usr/bin/env bash
# Writes docker-compose.yml for a cluster of N nodes on one host. The repository has the file for
# five nodes. At its first start, the cluster makes its certificates, its configurations and the
# profile for clients.
#
#   scripts/compose.sh [N]                       5 nodes if not given
#   COMPOSE_DIR=/elsewhere scripts/compose.sh    folder of certificates and profile, not ./compose
#   REVIVER=none scripts/compose.sh              without the engine's socket in the containers
#   IMAGE=registry/cortado scripts/compose.sh    this image, instead of one that is built here
#   COMPOSE_FILE=/elsewhere/c.yml scripts/compose.sh   path of the compose file; - is stdout
#   CLUSTER_NAME, FIRST_PORT, HTTP_PORT, DOCKER_SOCKET, CORTADO_ALLOW_CHAOS=true: see below
#
# The nodes bring each other back through the engine's socket, which gives the rights of root on
# this host; see docs/operations.md. Works with `docker compose` and with docker-compose 1.29.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nodes=${1:-5}
dir=${COMPOSE_DIR:-./compose}
reviver=${REVIVER:-docker}
name=${CLUSTER_NAME:-cortado}
first_port=${FIRST_PORT:-17402}
# The live page of node-1 is at this port of this host, that of node-2 at the next one, and so on.
http_port=${HTTP_PORT:-5000}
socket=${DOCKER_SOCKET:-/var/run/docker.sock}
file=${COMPOSE_FILE:-docker-compose.yml}
# User and group that the image runs as.
node_id=65532

# Compose takes a path without a slash for the name of a volume.
[[ $dir == [./]* ]] || dir=./$dir
[[ $nodes =~ ^[1-9][0-9]*$ ]] || { echo 'usage: scripts/compose.sh [N]' >&2; exit 2; }

port() { echo "127.0.0.1:$((first_port + 10 * ($1 - 1)))"; }
http() { echo "127.0.0.1:$((http_port + $1 - 1))"; }

image() {
    echo "  image: ${IMAGE:-cortado}"
    # Compose builds the image if it is missing. A compose file elsewhere needs the path to here.
    if [[ -z ${IMAGE:-} ]]; then
        [[ $file == */* ]] && echo "  build: '$PWD'" || echo '  build: .'
    fi
}

options=(--name "$name" --nodes "$nodes" --data /data --timing auto --reviver "$reviver")
[[ ${CORTADO_ALLOW_CHAOS:-} != true ]] || options+=(--allow-chaos)
published=$(for ((k = 1; k <= nodes; k++)); do port "$k"; done | paste -sd,)
published_http=$(for ((k = 1; k <= nodes; k++)); do http "$k"; done | paste -sd,)

write() {
    cat <<YAML
# A cluster of $nodes nodes on this host, written by scripts/compose.sh. Run the script again
# instead of editing this file.
#
#   docker compose up     or docker-compose up, from 1.29
#
# The service init makes certificates, configurations and the profile for clients in $dir,
# unless they exist, prints what it did, and ends. The nodes bring each other back through the
# engine's socket, which gives the rights of root on this host; see docs/operations.md.

x-cortado: &cortado
$(image)
  read_only: true
  cap_drop: [ALL]
  security_opt: ['no-new-privileges:true']

x-node: &node
  <<: *cortado
  depends_on: {init: {condition: service_completed_successfully}}
  user: '$node_id:$node_id'
YAML
    if [[ $reviver == docker ]]; then
        cat <<'YAML'
  # The group that may open the engine's socket differs between hosts. These are the usual ones; set
  # DOCKER_GID for another one. A node that can't open the socket logs the group's number and
  # revives no other node.
  group_add: ['0', '105', '998', '${DOCKER_GID:-999}']
YAML
    fi
    cat <<YAML
  # More than drain_seconds: peers would revive a node that is killed while it hands over.
  stop_grace_period: 30s

services:
  init:
    <<: *cortado
    entrypoint: [/cortado, init, --once, --dir, /compose, --seen-as, '$dir']
    command: [$(printf "'%s', " "${options[@]}" --node-group "$node_id")--published, '$published', --published-http, '$published_http']
    # Writes as root into the folder of the user who calls compose, and gives that user all files.
    user: '0:0'
    network_mode: none
    cap_add: [CHOWN, DAC_OVERRIDE]
    healthcheck: {disable: true}
    volumes: ['$dir:/compose']
YAML
    for ((k = 1; k <= nodes; k++)); do
        cat <<YAML

  node-$k:
    <<: *node
    hostname: node-$k
    labels: {cortado.cluster: '$name', cortado.node: node-$k}
    ports: ['$(port "$k"):7402/udp', '$(http "$k"):7403']
    volumes:
      - '$dir/node-$k:/etc/cortado:ro'
      - 'data-$k:/data'
YAML
        [[ $reviver != docker ]] || echo "      - '$socket:/var/run/docker.sock'"
    done
    local addresses
    addresses=$(for ((k = 1; k <= nodes; k++)); do echo "node-$k:7402"; done | paste -sd,)
    cat <<YAML

  # With \`--profile events\`: makes the stream of events, and publishes synthetic ones. A publisher
  # that is started again goes on under its name.
  events:
    <<: *cortado
    profiles: [events]
    depends_on: {init: {condition: service_completed_successfully}}
    entrypoint: [/cortado, --cluster, /compose, --own-addresses, --connect, '$addresses']
    command: [events, start]
    # Reads the key of the profile, which belongs to the user who calls compose.
    user: '0:0'
    cap_add: [DAC_OVERRIDE]
    healthcheck: {disable: true}
    volumes: ['$dir:/compose:ro']

  publisher:
    <<: *cortado
    profiles: [events]
    depends_on: {events: {condition: service_completed_successfully}}
    entrypoint: [/cortado, --cluster, /compose, --own-addresses, --connect, '$addresses', events, publish]
YAML
    cat <<'YAML'
    command: ['--publisher', '${PUBLISHER:-compose}', '--rate', '${RATE:-100}', '--seed', '${SEED:-1}',
      '--duplicates', '${DUPLICATES:-0.01}', '--invalid', '${INVALID:-0.01}', '--out-of-order', '${OUT_OF_ORDER:-1}',
      '--burst-probability', '${BURST_PROBABILITY:-0}', '--burst-size', '${BURST_SIZE:-100}']
YAML
    cat <<YAML
    user: '0:0'
    cap_add: [DAC_OVERRIDE]
    healthcheck: {disable: true}
    restart: on-failure
    volumes: ['$dir:/compose:ro']
YAML
    echo
    echo 'volumes:'
    for ((k = 1; k <= nodes; k++)); do echo "  data-$k:"; done
}

if [[ $file == - ]]; then
    write
    exit
fi
write >"$file"
cat <<TEXT
$nodes nodes in $file
  scripts/image.sh                the image, where none can be fetched
  docker-compose up -d            (or docker compose up -d); the profile will be $dir
  cortado --cluster $dir nodes
TEXT
