#!/bin/bash
# Builds the Kubernetes programs that the tests run, from Go modules alone, into a cache outside the checkout:
# ~/.cache/rowlock/kube/MODULE-VERSION/. Prints the path of each program named (or of all), one a line.
#
#   tests/cluster/build.sh [PROGRAM…]     `api`: the programs for tests of an API server; `all`: for a whole cluster;
#                                     `keda`: KEDA for a benchmark, whose CRDs are printed as a folder
#
# The go.mod files in the folders here set the versions. It builds one program at a time, with the lowest
# priority, and only what the cache lacks. A first build takes minutes (about 12 for all, on two cores) and
# says so on stderr. KEDA takes minutes more.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/rowlock/kube
here=$(cd "$(dirname "$0")" && pwd)
api="etcd kube-apiserver kubectl helm"
all="$api kube-controller-manager kube-scheduler kubelet kube-proxy coredns"
keda="keda-operator keda-adapter keda-crds"
case ${1:-api} in api) set -- $api ;; all) set -- $all ;; keda) set -- $keda ;; esac

version_of() { awk -v module="$2" '{ sub(/^require /, "") } $1 == module && $2 ~ /^v/ { print substr($2, 2) }' "$here/$1/go.mod"; }
kubernetes=$(version_of kubernetes k8s.io/kubernetes)
etcd=$(version_of etcd go.etcd.io/etcd/server/v3)
helm=$(version_of helm helm.sh/helm/v4)
coredns=$(version_of coredns github.com/coredns/coredns)
keda_version=$(version_of keda github.com/kedacore/keda/v2)

# Without a version the server reports v0.0.0-master, which misleads clients.
stamp() {
    local package minor=${kubernetes#*.}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- '-X %s.%s ' "$package" "gitVersion=v$kubernetes" "$package" "gitMajor=${kubernetes%%.*}" \
            "$package" "gitMinor=${minor%%.*}" "$package" gitTreeState=clean
    done
    printf -- '-X %s.Version=%s' github.com/kedacore/keda/v2/version "$keda_version"
}

build() { # program, its module's folder, its package, where to
    local begin=$SECONDS
    if ! command -v go >/dev/null 2>&1; then
        echo "missing: Go (1.26 or later), to build $1; install it from https://go.dev/dl" >&2
        exit 1
    fi
    echo "building $1 (once; minutes on a small machine)" >&2
    mkdir -p "$(dirname "$4")"
    # The kubelet needs cgo to read facts about this machine from the C library.
    local cgo=0
    [ "$1" != kubelet ] || cgo=1
    (cd "$here/$2" && GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=$cgo nice -n 19 \
        go build -buildvcs=false -trimpath -ldflags "-s -w $(stamp)" -o "$4.new" "$3") >&2
    mv "$4.new" "$4"
    echo "built $1: $((SECONDS - begin)) s" >&2
}

# The CRDs, as they are in KEDA's module.
copy_crds() { # where to
    local module
    module=$(cd "$here/keda" && GOFLAGS=-mod=readonly GOWORK=off go list -m -f '{{.Dir}}' github.com/kedacore/keda/v2)
    mkdir -p "$(dirname "$1")"
    rm -rf "$1.new"
    cp -r "$module/config/crd/bases" "$1.new"
    chmod -R u+w "$1.new"
    mv "$1.new" "$1"
}

for program in "$@"; do
    case $program in
        etcd) module=etcd package=go.etcd.io/etcd/server/v3 path=$cache/etcd-$etcd/etcd ;;
        helm) module=helm package=helm.sh/helm/v4/cmd/helm path=$cache/helm-$helm/helm ;;
        coredns) module=coredns package=. path=$cache/coredns-$coredns/coredns ;;
        keda-operator | keda-adapter)
            module=keda package=github.com/kedacore/keda/v2/cmd/${program#keda-} path=$cache/keda-$keda_version/$program ;;
        keda-crds) module=keda package= path=$cache/keda-$keda_version/crds ;;
        kube-apiserver | kube-controller-manager | kube-proxy | kube-scheduler | kubectl | kubelet)
            module=kubernetes package=k8s.io/kubernetes/cmd/$program path=$cache/kubernetes-$kubernetes/$program ;;
        *) echo "unknown: $program; one of $all $keda" >&2; exit 2 ;;
    esac
    if ! [ -x "$path" ]; then
        mkdir -p "$cache"
        exec 9>"$cache/.lock"
        flock 9
        # Another process may have built it while we waited for the lock.
        if ! [ -x "$path" ]; then
            if [ -n "$package" ]; then build "$program" "$module" "$package" "$path"; else copy_crds "$path"; fi
        fi
        exec 9>&-
    fi
    echo "$path"
done
