#!/usr/bin/env bash
# Three pools, each in a network namespace as on a machine of its own, behind HAProxy as examples/deploy/haproxy.cfg has
# it; replaces one of them under load and says what that cost: a Markdown table.
set -euo pipefail

restarts=10 stops=5
usage() {
    cat <<USAGE
usage: scripts/bench balancer [--quick]

  restart   $restarts rolling restarts of one pool (SIGHUP)
  replace   one pool stops (SIGTERM, lame duck, drain) and another is started in its place, $stops times
  both      each of the three pools in turn is replaced while the next one is restarted

Needs root, ip(8) and haproxy; without them it says so and does nothing. --quick does less of each. CONNECTIONS=N in the
environment sets the requests in progress at once (default $connections).
USAGE
}

connections=${CONNECTIONS:-32}
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage && exit 0 ;;
    --quick) restarts=3 stops=1 ;;
    *) echo "balancer: unknown option $1; try --help" >&2 && exit 2 ;;
    esac
    shift
done

skip() {
    echo "skipped: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
for tool in ip haproxy; do
    command -v "$tool" >/dev/null || skip "there is no $tool"
done

cd "$(dirname "$0")/../.."
. scripts/peers/pool.sh
# Already built ones, as a directory with forkpool and examples/load, or new ones.
built=${BUILT:-}
if [ -z "$built" ]; then
    cargo build --release --quiet --bin forkpool --example load
    built=${CARGO_TARGET_DIR:-target}/release
fi
scratch=$(mktemp -d)
prefix=forkpool-$$
balancer='' load=''
declare -A pools

# Ends what runs still, by its pid, and removes the namespaces, with which their interfaces go.
clean() {
    for pid in $load $balancer; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
    done
    # At once, and with its workers.
    for pid in "${pools[@]}"; do
        kill -INT "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
    done
    for name in balancer 1 2 3; do
        ip netns del "$prefix-$name" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean EXIT
trap 'exit 130' INT TERM

fail() {
    echo "balancer: $1" >&2
    exit 1
}

within() {
    local namespace=$prefix-$1
    shift
    ip netns exec "$namespace" "$@"
}

# The machines: one for HAProxy and the load, three for the pools, each with a wire to the first.
wire() {
    ip netns add "$prefix-balancer" 2>"$scratch/why" || skip "no network namespace: $(cat "$scratch/why")"
    within balancer ip link set lo up
    for i in 1 2 3; do
        ip netns add "$prefix-$i"
        within balancer ip link add name "pool$i" type veth peer name wire netns "$prefix-$i" 2>"$scratch/why" ||
            skip "no veth interfaces: $(cat "$scratch/why")"
        within balancer ip address add "10.77.$i.1/24" dev "pool$i"
        within balancer ip link set "pool$i" up
        within "$i" ip address add "10.77.$i.2/24" dev wire
        within "$i" ip link set wire up
        within "$i" ip link set lo up
    done
}

# begin N: the pool of machine N, serving.
begin() {
    local admin=()
    ! has_admin || admin=(--admin "10.77.$1.2:9000")
    : >"$scratch/log.$1"
    # Not a function: its pid would be a shell's.
    ip netns exec "$prefix-$1" "$built/forkpool" --listen "10.77.$1.2:8000" --workers 2 --lame-duck 2s --trusted-proxies 10.77.0.0/16 "${admin[@]}" 2>"$scratch/log.$1" &
    pools[$1]=$!
    listening "$scratch/log.$1" "${pools[$1]}" || fail "pool $1 did not start: $(tail -1 "$scratch/log.$1")"
}

has_admin() {
    "$built/forkpool" --help | grep -q -e '--admin '
}

restart() {
    local before after
    before=$(grep -c 'rolling restart done' "$scratch/log.$1" || true)
    kill -HUP "${pools[$1]}"
    for ((i = 0; i < 3000; i++)); do
        after=$(grep -c 'rolling restart done' "$scratch/log.$1" || true)
        [ "$after" = "$before" ] || return 0
        sleep 0.02
    done
    fail "pool $1 was not restarted within a minute: $(tail -1 "$scratch/log.$1")"
}

replace() {
    kill -TERM "${pools[$1]}"
    wait "${pools[$1]}" || fail "pool $1 ended with code $?"
    begin "$1"
    # Two checks, half a second apart, until HAProxy sends it requests again.
    sleep 2
}

restart_one() {
    for ((n = 0; n < restarts; n++)); do
        sleep 0.5
        restart 1
    done
}

replace_one() {
    for ((n = 0; n < stops; n++)); do
        sleep 0.5
        replace 1
    done
}

both() {
    for i in 1 2 3; do
        local next=$((i % 3 + 1))
        restart "$next" &
        local restarting=$!
        replace "$i"
        wait "$restarting" || fail "pool $next was not restarted"
    done
}

of() {
    tr ' ' '\n' <"$scratch/load" | sed -n "s/^$1=//p"
}

# under_load WHAT COMMAND: a row for each way to use connections.
under_load() {
    for keep in '' --keep-alive; do
        # shellcheck disable=SC2086 # an option or none
        ip netns exec "$prefix-balancer" "$built/examples/load" 127.0.0.1:8080 --path / --connections "$connections" --duration 300s \
            --verbose $keep >"$scratch/load" 2>"$scratch/failures" &
        load=$!
        sleep 1
        "$2"
        sleep 1
        kill -TERM "$load"
        local code=0
        wait "$load" || code=$?
        load=''
        [ "$code" -le 1 ] || fail "the load could not run: $(tail -1 "$scratch/failures")"
        local mode=connections
        [ -z "$keep" ] || mode=kept
        echo "| $1 | $mode | **$(of lost)** / $(of total) | $(of gap_ms) ms |"
        lost=$((lost + $(of lost)))
        head -5 "$scratch/failures" >&2
    done
}

wire
checks='checked on the admin port (GET /readyz)'
if has_admin; then
    cp examples/deploy/haproxy.cfg "$scratch/haproxy.cfg"
else
    # A binary without it: HAProxy sees a pool that is gone only by its refusals, and asks another one.
    checks='checked by connecting, as this binary has no admin port'
    sed -e '/httpchk\|http-check expect/d' -e 's/ port 9000 check/ check/' examples/deploy/haproxy.cfg >"$scratch/haproxy.cfg"
fi
for i in 1 2 3; do
    begin "$i"
done
ip netns exec "$prefix-balancer" haproxy -db -f "$scratch/haproxy.cfg" >"$scratch/haproxy.log" 2>&1 &
balancer=$!
sleep 2
kill -0 "$balancer" || fail "HAProxy does not run: $(tail -3 "$scratch/haproxy.log")"

echo "Three pools of two workers behind $(haproxy -v | head -1 | cut -d' ' -f1-3), $checks; $connections requests in progress."
echo
echo "| what happens | clients' connections | lost / total | longest gap |"
echo "|---|---|---:|---:|"
lost=0
under_load "one pool restarted $restarts times" restart_one
under_load "one pool stopped and started $stops times" replace_one
under_load "each pool in turn stopped and started, the next one restarted meanwhile" both
[ "$lost" = 0 ] || fail "$lost requests were lost"
