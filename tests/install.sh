#!/bin/bash
# Installs missing Debian packages for building and testing, as root or with sudo. If it cannot, it prints
# their names in one line. Argument: the purpose (`demo`, `test`, `cluster` or `bench`).
set -eu

purpose=${1:-demo}

# command=package
needed="gcc=gcc python3=python3"
# Users connect with psql. The tests put PgBouncer before the server. Prometheus, and amtool of its Alertmanager,
# check the alerts.
[ "$purpose" = test ] && needed="$needed psql=postgresql-client pgbouncer=pgbouncer prometheus=prometheus
    amtool=prometheus-alertmanager"
# A node, its network, an image builder, and what evaluates the alerts.
[ "$purpose" = cluster ] && needed="$needed psql=postgresql-client containerd=containerd runc=runc ip=iproute2 iptables=iptables
    conntrack=conntrack openssl=openssl buildah=buildah strip=binutils prometheus=prometheus"
# The peer in benchmarks of HTTP handlers, and the packages of those that run on Node.
[ "$purpose" = bench ] && needed="$needed wrk=wrk npm=npm"

packages=""
for pair in $needed; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%=*}" ] || packages="$packages ${pair#*=}"
done
# The C library's headers, without which `gcc` cannot link on a minimal Debian.
if ! [ -e /usr/include/stdio.h ]; then packages="$packages libc6-dev"; fi
# Downloads are verified with the system's certificates.
if ! [ -e /etc/ssl/certs/ca-certificates.crt ]; then packages="$packages ca-certificates"; fi

# This package has no program on PATH.
if [ "$purpose" = cluster ] && ! [ -x /usr/lib/cni/bridge ]; then packages="$packages containernetworking-plugins"; fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: Rust (cargo); install it from https://rustup.rs" >&2
    exit 1
fi
if [ "$purpose" != demo ] && ! command -v go >/dev/null 2>&1; then
    echo "missing: Go (1.26 or later), for Kubernetes' programs and the programs of bench/; install it from https://go.dev/dl" >&2
    exit 1
fi
[ -z "$packages" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$packages (names as in Debian); install them and run make again" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "missing:$packages; run as root: apt-get install$packages" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "installing:$packages"
log=$(mktemp)
install() {
    # A new machine has no package lists yet. RUNLEVEL=1 keeps services of the packages from starting.
    $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -q -y --no-install-recommends $packages
}
if ! install >"$log" 2>&1 </dev/null; then
    tail -n 5 "$log" >&2
    echo "missing:$packages; apt-get could not install them (whole log: $log)" >&2
    exit 1
fi
rm -f "$log"
