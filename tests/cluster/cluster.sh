#!/bin/bash
# Runs a Kubernetes cluster of two nodes on this machine, in separate namespaces.
#
#   cluster.sh run NAME      starts it, prints `ready`, waits for a signal to stop, and removes everything of it
#   cluster.sh up NAME       the same in the background; prints KUBECONFIG=…
#   cluster.sh down NAME     stops it
#   cluster.sh load NAME IMAGE.tar…   imports images (docker or OCI archives) into every node
#   cluster.sh enter NAME COMMAND…    runs a command in the cluster's network, mount and pid namespaces
#   cluster.sh check         prints in one line what this machine lacks, if anything
#
# All processes run in one network, mount and pid namespace with machine.sh as init: when that ends, so do
# processes, networks and mounts. Outside are the state folder, one cgroup per node, and a forwarder from a
# free port on this machine's loopback to the API server. `run` removes them when it ends; if it is killed,
# the next `run` does.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
clusters=${XDG_CACHE_HOME:-$HOME/.cache}/rowlock/clusters
# The start usually takes 8 s, and a few times that on a busy machine.
patience=120
# `make … SECONDS=600` is not meant for this script, but bash would count from it.
SECONDS=0
. "$here/cgroups.sh"

fail() { echo "cluster: $*" >&2; exit 1; }

missing() {
    [ "$(id -u)" = 0 ] || { echo "missing: root, as it makes namespaces and cgroups"; return; }
    local program
    for program in containerd runc iptables conntrack ip nsenter unshare setpriv openssl python3; do
        command -v "$program" >/dev/null || { echo "missing: $program; tests/install.sh cluster installs it"; return; }
    done
    [ -x /usr/lib/cni/bridge ] || { echo "missing: /usr/lib/cni/bridge; tests/install.sh cluster installs it"; return; }
    command -v go >/dev/null || { echo "missing: Go (1.26 or later), to build Kubernetes"; return; }
    unshare --net --mount --pid --fork true 2>/dev/null || { echo "missing: namespaces; this machine does not let us make any"; return; }
    cgroups_missing
}

# Whether the process that we started still runs. The start time tells it from a later process with the same
# id.
lives() { # the file with its id and start time
    local pid began
    read -r pid began 2>/dev/null <"$1" || return 1
    [ "$(started "$pid")" = "$began" ]
}
started() { # fields count after the name, which may contain spaces; a zombie has ended
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    set -- ${stat##*) }
    [ "$1" = Z ] || echo "${20}"
}
record() { echo "$1 $(started "$1")" >"$2"; }

# Removes what killed runs left behind. Their processes have ended with them.
sweep() {
    local folder
    for folder in "$clusters"/*/; do
        [ -e "$folder" ] && ! lives "$folder/runner" || continue
        remove "$(basename "$folder")"
    done
}
remove() {
    cgroups_remove "$1"
    rm -rf "${clusters:?}/$1"
}

run() {
    local name=$1 state=$clusters/$1 reason init forward code=0
    reason=$(missing)
    [ -z "$reason" ] || fail "$reason"
    mkdir -p "$clusters"
    exec 8>"$clusters/.lock"
    flock 8
    sweep
    mkdir "$state" 2>/dev/null || fail "$name exists: cluster.sh down $name"
    record $$ "$state/runner"
    exec 8>&-
    trap 'end "$name"' EXIT
    trap 'exit 0' TERM INT HUP
    cgroups_make "$name"
    export PATH=$("$here/build.sh" all | xargs -n1 dirname | sort -u | paste -sd:):/usr/sbin:/sbin:$PATH
    setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc \
        "$here/machine.sh" "$name" "$state" >"$state/machine.log" 2>&1 </dev/null &
    init=$!
    record "$init" "$state/unshare"
    # From then on the init's namespaces can be entered.
    until [ -s "$state/pki/admin.crt" ]; do going "$state" "$init"; sleep 0.05; done
    setpriv --pdeathsig KILL python3 "$here/forward.py" "$init" 10.89.0.1:6443 "$state/port" >"$state/forward.log" 2>&1 </dev/null &
    until [ -s "$state/port" ]; do going "$state" "$init"; sleep 0.05; done
    # The administrator's kubeconfig outside the namespaces.
    (umask 077 && "$here/kubeconfig.sh" "https://127.0.0.1:$(cat "$state/port")" "$state/pki" admin >"$state/kubeconfig")
    until [ -e "$state/up" ]; do going "$state" "$init"; sleep 0.1; done
    echo ready
    touch "$state/ready"
    wait "$init" || code=$?
    fail "its init ended with $code: $(tail -n 3 "$state/machine.log")"
}
going() { # the folder, the init
    [ "$SECONDS" -lt "$patience" ] || fail "not up after $patience s: $(tail -n 3 "$1/machine.log")"
    kill -0 "$2" 2>/dev/null || fail "$(tail -n 3 "$1/machine.log")"
}
end() {
    trap '' TERM INT HUP
    kill -KILL $(jobs -p) 2>/dev/null || true
    wait 2>/dev/null || true
    # Keeps the logs to find the cause of a failure; a later cluster with the same name overwrites them.
    if [ -n "${KEEP_LOGS:-}" ]; then rm -rf "$KEEP_LOGS" && mkdir -p "$KEEP_LOGS" && cp "$clusters/$1"/*.log "$KEEP_LOGS" || true; fi
    remove "$1"
}

up() {
    local state=$clusters/$1 log
    if lives "$state/runner" && [ -e "$state/ready" ]; then echo "KUBECONFIG=$state/kubeconfig"; return; fi
    log=$(mktemp)
    # Builds missing programs first, with visible output.
    "$here/build.sh" all >/dev/null
    setsid "$here/cluster.sh" run "$1" >"$log" 2>&1 </dev/null &
    until [ -e "$state/ready" ]; do
        kill -0 $! 2>/dev/null || { cat "$log" >&2; rm -f "$log"; exit 1; }
        sleep 0.1
    done
    rm -f "$log"
    echo "KUBECONFIG=$state/kubeconfig"
}

down() {
    local state=$clusters/$1 pid
    if lives "$state/runner"; then
        read -r pid _ <"$state/runner"
        kill "$pid"
        while lives "$state/runner"; do sleep 0.1; done
    fi
    [ ! -e "$state" ] || remove "$1"
}

enter() {
    local state=$clusters/$1 init
    lives "$state/unshare" || fail "$1 does not run"
    read -r init _ <"$state/unshare"
    # unshare waits for its only child, the init.
    init=$(cat "/proc/$init/task/$init/children")
    shift
    exec nsenter -t ${init% } --net --mount --pid "$@"
}

load() {
    local name=$1 node
    shift
    for node in 1 2; do
        for image in "$@"; do
            "$here/cluster.sh" enter "$name" ctr -a "/run/node$node/containerd.sock" -n k8s.io images import "$image" >/dev/null
        done
    done
}

case ${1:-} in
    run | up | down | load | enter) [ $# -gt 1 ] || fail "which one?"; "$@" ;;
    check) missing ;;
    *) sed -n '4,9s/^# *//p' "$0" >&2; exit 2 ;;
esac
