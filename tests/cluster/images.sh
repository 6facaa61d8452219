#!/bin/bash
# Builds images for a cluster without a registry: images.sh PROGRAMS-FOLDER TO-FOLDER
#
# `make images` builds worker and operator from the Dockerfile. In place of its stage `build` it uses the folder of
# programs that cargo has built, and a base image with this machine's C library. The other images are the
# handler of the tests and the pause container of pods. Writes TO-FOLDER/*.tar.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs=$1 to=$2
store=${XDG_CACHE_HOME:-$HOME/.cache}/rowlock/images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$store" "$to"
# A separate store, so that the images of this machine's users are not touched.
buildah="buildah --root $store --runroot $work/run"

exec 9>"$store.lock"
flock 9

# Identifies the inputs of the images. If two clusters start together, the second uses the images of the first.
made_from() {
    cd "$here/../.."
    sha256sum "$programs/rowlock-worker" "$programs/rowlock-operator" Dockerfile Makefile charts/rowlock/Chart.yaml \
        tests/cluster/images.sh tests/cluster/handler/* tests/cluster/pause/* /etc/ssl/certs/ca-certificates.crt
    python3 -VV
}
sources=$(made_from)
archives() { (cd "$to" && ls -1 -- *.tar 2>/dev/null) || true; }
if [ -e "$to/made-from" ] && [ "$sources"$'\n'"$(archives)" = "$(cat "$to/made-from")" ]; then
    archives
    exit
fi
rm -f "$to"/made-from "$to"/*.tar

# The base image: only the files that a program from this machine needs.
base() {
    local library
    mkdir -p "$work/base/etc/ssl/certs" "$work/base/tmp"
    chmod 1777 "$work/base/tmp"
    for library in $(ldd "$programs/rowlock-worker" "$programs/rowlock-operator" | grep -o '/[^ :]*so[^ :]*' | sort -u); do
        # At the path where the program looks, even if that is a link on this machine.
        install -D "$library" "$work/base$library"
    done
    # The C library loads these itself to resolve names.
    for library in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
        library=$(ldconfig -p | awk -v name=$library '$1 == name && !found++ { print $NF }')
        [ -z "$library" ] || install -D "$library" "$work/base$library"
    done
    cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/"
    printf 'hosts: files dns\n' >"$work/base/etc/nsswitch.conf"
    printf 'root:x:0:0::/:/\nnonroot:x:65532:65532::/:/\n' >"$work/base/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$work/base/etc/group"
    one rowlock-base "$work/base" 'FROM scratch\nCOPY . /\n'
}

# In place of `python:3-slim` in README.md's example: this machine's Python with its library and all linked
# libraries.
python() {
    local program library home
    program=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
    home=$(python3 -c 'import sys; print(sys.base_prefix)')
    library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$work/python/usr/local/bin" "$work/python$(dirname "$program")" "$work/python$library" "$work/python/tmp"
    cp "$program" "$work/python$program"
    ln -s "$program" "$work/python/usr/local/bin/python3"
    tar -C "$library" --exclude=site-packages --exclude=dist-packages --exclude=test --exclude='config-*' \
        --exclude=__pycache__ -c . | tar -C "$work/python$library" -x
    ldd "$program" "$library"/lib-dynload/*.so 2>/dev/null | grep -o '/[^ :]*so[^ :]*' | sort -u | while read -r needed; do
        [ -e "$work/python$needed" ] || install -D "$needed" "$work/python$needed"
    done
    # Readable for every user, whatever this user's umask is.
    chmod -R go+rX "$work/python"
    one rowlock-python "$work/python" "FROM scratch\\nCOPY . /\\nENV PYTHONHOME=$home PATH=/usr/local/bin\\n"
}

one() { # name, folder, Dockerfile
    printf "$3" | $buildah build -q --isolation chroot --format docker -t "localhost/$1:1" -f - "$2" >/dev/null
}

save() { # image, its tag, its name in the cluster
    local name=${3:-localhost/$1:$2}
    local file=$to/$(basename "${name%:*}")-${name##*:}.tar
    rm -f "$file"
    $buildah push -q "localhost/$1:$2" "docker-archive:$file:$name" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

base
mkdir -p "$work/build/out"
for program in rowlock-worker rowlock-operator; do strip -o "$work/build/out/$program" "$programs/$program"; done
MAKEFLAGS='' make -s -C "$here/../.." images BUILDER="$buildah" IMAGE_PREFIX=localhost/ TAG=test BUILD_FLAGS="-q --isolation chroot \
    --format docker --build-arg BASE=localhost/rowlock-base:1 --build-context build=$work/build" >/dev/null

mkdir "$work/handler" "$work/pause"
(cd "$here/handler" && GOWORK=off CGO_ENABLED=0 nice -n 19 go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$work/handler/handler" .)
one rowlock-handler "$work/handler" 'FROM scratch\nCOPY handler /\nUSER 65532:65532\nENTRYPOINT ["/handler"]\n'
gcc -O2 -static -s -o "$work/pause/pause" "$here/pause/pause.c"
one rowlock-pause "$work/pause" 'FROM scratch\nCOPY pause /\nUSER 65532:65532\nENTRYPOINT ["/pause"]\n'

python

save rowlock-worker test
save rowlock-operator test
# The same image under the tag of a next release, for tests of an upgrade.
save rowlock-worker test localhost/rowlock-worker:next
# With the tag of the chart, which README.md uses.
version=$(awk '$1 == "appVersion:" { print $2 }' "$here/../../charts/rowlock/Chart.yaml" | tr -d '"')
save rowlock-worker test "localhost/rowlock-worker:$version"
save rowlock-operator test "localhost/rowlock-operator:$version"
save rowlock-python 1 docker.io/library/python:3-slim
save rowlock-handler 1
# The same image as the next release of the user's handler.
save rowlock-handler 1 localhost/rowlock-handler:2
save rowlock-pause 1
$buildah rmi --prune >/dev/null 2>&1 || true
echo "$sources"$'\n'"$(archives)" >"$to/made-from"
archives
