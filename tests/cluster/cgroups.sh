# The cgroups of a cluster, one for each node: the kubelet makes those of its pods below. Sourced.

cgroups=/sys/fs/cgroup
[ -e $cgroups/cgroup.controllers ] && unified=yes || unified=

# Every hierarchy of version 1, or the one of version 2.
hierarchies() {
    if [ -n "$unified" ]; then echo $cgroups; else
        awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts | sort -u
    fi
}

cgroups_missing() {
    local hierarchy
    for hierarchy in $(hierarchies); do
        [ -w "$hierarchy" ] || { echo "missing: cgroups; $hierarchy cannot be written"; return; }
    done
    # In a container its top is no root: with processes of its own it gives no controllers to those below.
    if [ -n "$unified" ] && [ -e $cgroups/cgroup.type ] && [ -n "$(cat $cgroups/cgroup.procs)" ]; then
        echo "missing: cgroups; processes run in the topmost one, move them to one below it"
    fi
}

cgroups_make() { # name
    local hierarchy node file
    for hierarchy in $(hierarchies); do
        for node in 1 2; do mkdir -p "$hierarchy/rowlock-$1-node$node"; done
    done
    if [ -n "$unified" ]; then
        # All there are: the kubelet refuses a root that lacks one of its own.
        for file in $(cat $cgroups/cgroup.controllers); do echo "+$file" >$cgroups/cgroup.subtree_control; done
        return
    fi
    for node in 1 2; do
        # A new one has neither, and then nothing may run in it.
        for file in cpuset.cpus cpuset.mems; do cat $cgroups/cpuset/$file >"$cgroups/cpuset/rowlock-$1-node$node/$file"; done
    done
}

# The processes have ended; where some linger for a moment, the folder is tried again.
cgroups_remove() { # name
    local hierarchy node folder tries
    for hierarchy in $(hierarchies); do
        for node in 1 2; do
            folder=$hierarchy/rowlock-$1-node$node
            for tries in $(seq 50); do
                [ -d "$folder" ] || break
                find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
            done
        done
    done
}
