#!/usr/bin/env bash
# Cuts and disturbs the network between nodes in containers on this host (scripts/compose.sh). It
# finds them by their labels cortado.cluster and cortado.node. Needs root, docker, nsenter and nft.
# It runs on the host, because the image has no tools.
#
#   scripts/netem.sh partition node-1,node-2            these two on one side, the rest on the other
#   scripts/netem.sh partition node-1 node-2 node-3     three sides; other nodes reach all of them
#   scripts/netem.sh oneway node-1 [node-2]             drop packets of node-1 at node-2, or at all
#   scripts/netem.sh loss 20 node-1                     drop 20 % of the packets to and from node-1
#   scripts/netem.sh delay 200ms node-1                 delay the packets of node-1 to nodes (netem)
#   scripts/netem.sh heal [node-1,node-2]               undo everything, or all that affects these
#   scripts/netem.sh status                             cuts, losses and delays, and dropped packets
#
#   --for 30s         wait, then undo only this call; also on Ctrl-C
#   --cluster NAME    or CLUSTER_NAME: needed if containers of several clusters run here
#
# Earlier calls stay in effect: two cuts add up. Only packets between nodes are dropped, so clients
# reach every node at its published port. The receiver drops the packets, as on a real network: a
# sender would notice its own firewall. A restarted container has a new network without rules, and
# perhaps another address. Then heal, and cut again.
#
# Cuts and loss are nftables rules, in a table cortado_netem of each container's network. A delay
# needs netem in the kernel. Without netem, use: cortado chaos delay node-1 --ms 200 --for 30s.
set -euo pipefail

table='inet cortado_netem'
# Each call has its own chain, so that it can be undone alone.
chain=cut_${EPOCHSECONDS}_$$
# The handle of this script's queueing disciplines.
qdisc=c0a7:

fail() { echo "netem: $*" >&2; exit 2; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# ---- arguments ----------------------------------------------------------------------------------

cluster=${CLUSTER_NAME:-}
seconds=''
words=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --for)
            [[ ${2:-} =~ ^([0-9]+)(ms|s|m)$ ]] || fail '--for needs a time like 500ms, 30s or 2m'
            case ${BASH_REMATCH[2]} in
                ms) printf -v seconds '%d.%03d' $((10#${BASH_REMATCH[1]} / 1000)) $((10#${BASH_REMATCH[1]} % 1000)) ;;
                s) seconds=${BASH_REMATCH[1]} ;;
                m) seconds=$((10#${BASH_REMATCH[1]} * 60)) ;;
            esac
            shift
            ;;
        --cluster)
            cluster=${2:-}
            [[ -n $cluster ]] || fail '--cluster needs a name'
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*) fail "unknown option $1; see --help" ;;
        *) words+=("$1") ;;
    esac
    shift
done
if [[ ${#words[@]} -eq 0 ]]; then
    usage >&2
    exit 2
fi
verb=${words[0]}
words=("${words[@]:1}")
case $verb in
    partition | oneway) [[ ${#words[@]} -ge 1 ]] || fail "$verb needs nodes: scripts/netem.sh $verb node-1" ;;
    loss | delay) [[ ${#words[@]} -eq 2 ]] || fail "$verb needs how much, and nodes; see --help" ;;
    heal) [[ ${#words[@]} -le 1 ]] || fail 'heal takes one list: scripts/netem.sh heal node-1,node-2' ;;
    status) [[ ${#words[@]} -eq 0 ]] || fail 'status takes nothing more' ;;
    *) fail "unknown: $verb; there are partition, oneway, loss, delay, heal, status" ;;
esac
[[ $verb != oneway || ${#words[@]} -le 2 ]] || fail 'oneway takes who is not heard, and by whom'
if [[ -n $seconds && ($verb == heal || $verb == status) ]]; then
    fail "--for makes no sense with $verb"
fi

for tool in docker:docker.io nsenter:util-linux nft:nftables; do
    command -v "${tool%:*}" >/dev/null || fail "${tool%:*} is missing; on Debian: apt-get install ${tool#*:}"
done
[[ $(id -u) -eq 0 ]] || fail "the network of a container can be entered by root only: sudo scripts/netem.sh …"

# ---- nodes --------------------------------------------------------------------------------------

nodes=()
declare -A pid address

# Sets `nodes` to the running nodes, and `pid` and `address` for each.
find_nodes() {
    local ids node process addresses
    nodes=()
    pid=()
    mapfile -t ids < <(docker ps --quiet --filter "label=cortado.cluster=$cluster" --filter label=cortado.node)
    [[ ${#ids[@]} -gt 0 ]] || return 0
    while read -r node process addresses; do
        nodes+=("$node")
        pid[$node]=$process
        address[$node]=$addresses
    done < <(docker inspect --format '{{index .Config.Labels "cortado.node"}} {{.State.Pid}}{{range .NetworkSettings.Networks}} {{.IPAddress}} {{.GlobalIPv6Address}}{{end}}' "${ids[@]}" | sort --version-sort)
}

clusters=$(docker ps --filter label=cortado.cluster --format '{{.Label "cortado.cluster"}}' | sort -u) ||
    fail 'the container engine does not answer; is it running, and is DOCKER_HOST right?'
if [[ -z $cluster ]]; then
    [[ $clusters != *$'\n'* ]] || fail "several clusters run here: choose one of ${clusters//$'\n'/, } with --cluster"
    cluster=$clusters
fi
find_nodes
if [[ ${#nodes[@]} -eq 0 ]]; then
    fail "no node${cluster:+ of the cluster $cluster} runs in a container here; scripts/compose.sh says how to start some${clusters:+. Clusters that run: ${clusters//$'\n'/ }}"
fi
for node in "${nodes[@]}"; do
    [[ -e /proc/${pid[$node]}/ns/net ]] || fail "$node is not on this host: run this where the container engine runs"
done

# list NODES: prints one node per line; fails if one does not run.
list() {
    local node
    for node in ${1//,/ }; do
        if [[ -z ${pid[$node]:-} ]]; then
            fail "no node $node runs in the cluster $cluster; there are: ${nodes[*]}"
        fi
        echo "$node"
    done
}

# others NODES: prints all other nodes, separated by commas.
others() {
    local node left=()
    for node in "${nodes[@]}"; do
        [[ ,$1, == *,$node,* ]] || left+=("$node")
    done
    [[ ${#left[@]} -gt 0 ]] || fail 'nobody is left on the other side'
    (IFS=,; echo "${left[*]}")
}

# enter NODE COMMAND...: runs the command in the node's network.
enter() { nsenter --net="/proc/${pid[$1]}/ns/net" -- "${@:2}"; }

# ---- cuts and loss ------------------------------------------------------------------------------

# The rules of each receiver.
declare -A rules=()

# drop PERCENT FROM BY: adds rules that drop packets from the nodes in FROM at the nodes in BY.
drop() {
    local senders receivers sender receiver ip family some='' note=cut
    if [[ $1 -lt 100 ]]; then
        some="numgen random mod 100 < $1 "
        note="$1 %"
    fi
    senders=$(list "$2")
    receivers=$(list "$3")
    for receiver in $receivers; do
        for sender in $senders; do
            [[ $sender != "$receiver" ]] || continue
            for ip in ${address[$sender]}; do
                family=ip
                [[ $ip != *:* ]] || family=ip6
                rules[$receiver]+="add rule $table $chain $family saddr $ip ${some}counter drop comment \"$sender $note\""$'\n'
            done
        done
    done
}

apply_rules() {
    local node
    for node in "${!rules[@]}"; do
        enter "$node" nft -f - <<NFT
add table $table
add chain $table $chain { type filter hook input priority 0; }
${rules[$node]}
NFT
    done
}

# Removes this call's chain, and the table if no chain is left.
undo_rules() {
    local node
    for node in "${!rules[@]}"; do
        [[ -n ${pid[$node]:-} ]] || continue
        enter "$node" nft "flush chain $table $chain; delete chain $table $chain" 2>/dev/null || true
        # shellcheck disable=SC2086 # two words
        enter "$node" nft list table $table 2>/dev/null | grep -q chain ||
            enter "$node" nft delete table $table 2>/dev/null || true
    done
}

# forget_senders NODES: removes the rules of all nodes that drop packets from these.
forget_senders() {
    local node
    for node in "${nodes[@]}"; do
        # shellcheck disable=SC2086
        { enter "$node" nft --handle list table $table 2>/dev/null || true; } | awk -v healed=",$1," -v table="$table" '
            $1 == "chain" { chain = $2 }
            / comment "/ {
                split($0, part, "\"")
                sender = part[2]
                sub(/ .*/, "", sender)
                if (index(healed, "," sender ",")) print "delete rule", table, chain, "handle", $NF
            }' | enter "$node" nft -f -
    done
}

# ---- delay --------------------------------------------------------------------------------------

delayed=()

# interfaces NODE: prints the interfaces with the node's addresses.
interfaces() {
    local ip
    for ip in ${address[$1]}; do
        enter "$1" ip -oneline address show to "$ip" | awk '{ print $2 }'
    done | sort -u
}

# delay TIME NODES: adds a band for packets to other nodes, which netem delays.
delay() {
    local node peer peers ip interface match chosen
    command -v tc >/dev/null || fail 'tc is missing; on Debian: apt-get install iproute2'
    chosen=$(list "$2")
    for node in $chosen; do
        peers=$(others "$node")
        for interface in $(interfaces "$node"); do
            if enter "$node" tc qdisc show dev "$interface" | grep -q "prio $qdisc"; then
                fail "$node is delayed already: scripts/netem.sh heal $node"
            fi
            delayed+=("$node $interface")
            if ! {
                enter "$node" tc qdisc add dev "$interface" root handle "$qdisc" prio bands 4 &&
                    enter "$node" tc qdisc add dev "$interface" parent "${qdisc}4" netem delay "$1"
            }; then
                fail "nothing is delayed, since this kernel has no netem, or tc could not use it (see above). Without it, in a cluster started with --allow-chaos: cortado chaos delay $2 --ms ${1%ms} --for 30s"
            fi
            for peer in ${peers//,/ }; do
                for ip in ${address[$peer]}; do
                    match="protocol ip u32 match ip dst $ip/32"
                    [[ $ip != *:* ]] || match="protocol ipv6 u32 match ip6 dst $ip/128"
                    # shellcheck disable=SC2086 # several words
                    enter "$node" tc filter add dev "$interface" parent "$qdisc" $match flowid "${qdisc}4"
                done
            done
        done
    done
}

# undelay NODE INTERFACE: removes this script's queueing discipline, and no other.
undelay() {
    [[ -n ${pid[$1]:-} ]] && command -v tc >/dev/null || return 0
    if enter "$1" tc qdisc show dev "$2" | grep -q "prio $qdisc"; then
        enter "$1" tc qdisc del dev "$2" root
    fi
}

# ---- commands -----------------------------------------------------------------------------------

# undo CODE: undoes everything that this call did, also after half of it, and exits.
undo() {
    trap - EXIT INT TERM
    set +e
    local each
    [[ -z ${sleeper:-} ]] || kill "$sleeper" 2>/dev/null
    # A container may have been restarted meanwhile.
    find_nodes
    undo_rules
    # shellcheck disable=SC2086 # two words
    for each in "${delayed[@]}"; do undelay $each; done
    [[ -z ${sleeper:-} ]] || echo healed
    exit "$1"
}

begin() {
    trap 'undo $?' EXIT
    trap 'undo 130' INT
    trap 'undo 143' TERM
}

# finish TEXT: prints the text and leaves the disturbance in place, or waits until its time is over.
finish() {
    if [[ -z $seconds ]]; then
        trap - EXIT INT TERM
        echo "$1; to end it: scripts/netem.sh heal"
        return
    fi
    echo "$1, for $seconds s"
    # In the background, because a trap runs only after the foreground command has ended.
    sleep "$seconds" &
    sleeper=$!
    wait "$sleeper"
}

case $verb in
    partition)
        if [[ ${#words[@]} -eq 1 ]]; then
            rest=$(others "${words[0]}")
            words+=("$rest")
        fi
        for ((one = 0; one < ${#words[@]}; one++)); do
            for ((two = one + 1; two < ${#words[@]}; two++)); do
                for node in ${words[two]//,/ }; do
                    [[ ,${words[one]}, != *,$node,* ]] || fail "$node can't be on two sides"
                done
                drop 100 "${words[one]}" "${words[two]}"
                drop 100 "${words[two]}" "${words[one]}"
            done
        done
        begin
        apply_rules
        told="cut: ${words[0]}"
        for word in "${words[@]:1}"; do told+=" | $word"; done
        finish "$told"
        ;;
    oneway)
        hearers=${words[1]:-$(others "${words[0]}")}
        drop 100 "${words[0]}" "$hearers"
        [[ ${#rules[@]} -gt 0 ]] || fail 'a node always hears itself'
        begin
        apply_rules
        finish "cut: ${words[0]} is not heard by $hearers"
        ;;
    loss)
        percent=${words[0]%\%}
        [[ $percent =~ ^(100|[1-9][0-9]?)$ ]] ||
            fail "loss of '${words[0]}': expected 1 to 100 (per cent), then nodes"
        all=$(IFS=,; echo "${nodes[*]}")
        drop "$percent" "${words[1]}" "$all"
        # Between the named nodes, both directions already have rules.
        rest=$(others "${words[1]}" 2>/dev/null) || rest=''
        [[ -z $rest ]] || drop "$percent" "$rest" "${words[1]}"
        begin
        apply_rules
        finish "$percent % of the packets from and to ${words[1]} are lost"
        ;;
    delay)
        [[ ${words[0]} =~ ^[0-9]+(ms|s)$ ]] || fail "delay of '${words[0]}': expected a time like 200ms, then nodes"
        time=${words[0]}
        [[ $time == *ms ]] || time=$((10#${time%s} * 1000))ms
        begin
        delay "$time" "${words[1]}"
        finish "what ${words[1]} sends comes $time later"
        ;;
    heal)
        healed=${words[0]:-$(IFS=,; echo "${nodes[*]}")}
        chosen=$(list "$healed")
        forget_senders "$healed"
        for node in $chosen; do
            # shellcheck disable=SC2086
            enter "$node" nft delete table $table 2>/dev/null || true
            for interface in $(interfaces "$node"); do undelay "$node" "$interface"; done
        done
        echo "healed: $healed"
        ;;
    status)
        for node in "${nodes[@]}"; do
            {
                # shellcheck disable=SC2086
                enter "$node" nft list table $table 2>/dev/null | awk '
                    / comment "/ {
                        split($0, part, "\"")
                        split(part[2], word, " ")
                        for (i = 1; i < NF; i++) if ($i == "packets") packets = $(i + 1)
                        what = word[2] == "cut" ? "does not hear " word[1] : "loses " word[2] " % from " word[1]
                        printf "%s (%d packets dropped)\n", what, packets
                    }' || true
                if command -v tc >/dev/null; then
                    enter "$node" tc qdisc show | sed -n 's/^qdisc netem.*delay \([^ ]*\).*/sends \1 later/p'
                fi
            } | awk -v node="$node" '{ print node, $0 } END { if (!NR) print node, "hears everybody" }'
        done
        ;;
esac
