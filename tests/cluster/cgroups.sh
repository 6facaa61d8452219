# Functions for the cgroups of a cluster, one per node; the kubelet creates the cgroups of its pods below.
# Sourced.

cgroups=/sys/fs/cgroup
[ -e $cgroups/cgroup.controllers ] && unified=yes || unified=

# Prints all hierarchies of cgroup v1, or the single one of v2.
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
    # In a container the topmost cgroup is not the root: while it contains processes, it cannot delegate
    # controllers.
    if [ -n "$unified" ] && [ -e $cgroups/cgroup.type ] && [ -n "$(cat $cgroups/cgroup.procs)" ]; then
        echo "missing: cgroups; processes run in the topmost cgroup, move them to one below it"
    fi
}

cgroups_make() { # name
    local hierarchy node file
    for hierarchy in $(hierarchies); do
        for node in 1 2; do mkdir -p "$hierarchy/rowlock-$1-node$node"; done
    done
    if [ -n "$unified" ]; then
        # All controllers, because the kubelet refuses a root cgroup without one that it uses.
        for file in $(cat $cgroups/cgroup.controllers); do echo "+$file" >$cgroups/cgroup.subtree_control; done
        return
    fi
    for node in 1 2; do
        # A new cpuset is empty, and no process can run in it.
        for file in cpuset.cpus cpuset.mems; do cat $cgroups/cpuset/$file >"$cgroups/cpuset/rowlock-$1-node$node/$file"; done
    done
}

# Removes the folders after the processes have ended, and retries while the kernel still cleans up.
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
