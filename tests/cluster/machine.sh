#!/bin/bash
# The init of a cluster, run in separate network, mount and pid namespaces: machine.sh NAME STATE-FOLDER
#
# The control plane and DNS listen on 10.89.0.1 in this network. A bridge leads to the nodes (10.89.0.11,
# .12), each in its own network namespace with pods in 10.244.NODE.0/24. Servers of tests that pods call
# listen here too.
set -euo pipefail
name=$1 state=$2
here=$(cd "$(dirname "$0")" && pwd)
lan=10.89.0.1 services=10.96.0.0/16 dns=10.96.0.10
export KUBECONFIG=$state/inside.kubeconfig
. "$here/certificates.sh"

hide_the_machine() {
    # The kubelet mounts the volumes of pods, and containerd has to see the mounts.
    mount --make-rshared /
    for folder in /run /var/log /var/lib; do mount -t tmpfs tmpfs $folder; done
    mkdir -p /run/netns /run/lock
}

network() {
    ip link set lo up
    ip link add lan type bridge
    ip addr add $lan/24 dev lan
    ip link set lan up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    local node
    for node in 1 2; do
        ip netns add node$node
        ip link add node$node type veth peer name eth0 netns node$node
        ip link set node$node master lan up
        ip -n node$node link set lo up
        ip -n node$node addr add 10.89.0.1$node/24 dev eth0
        ip -n node$node link set eth0 up
        ip -n node$node route add default via $lan
        ip -n node$node route add 10.244.$((3 - node)).0/24 via 10.89.0.1$((3 - node))
        ip route add 10.244.$node.0/24 via 10.89.0.1$node
        # Not `ip netns exec`, which mounts a new /sys without cgroups.
        nsenter --net=/run/netns/node$node sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    done
}

certificates() {
    mkdir -p "$state/pki"
    cd "$state/pki"
    authority
    service_accounts
    certificate apiserver /CN=kube-apiserver "DNS:kubernetes.default.svc,DNS:localhost,IP:10.96.0.1,IP:127.0.0.1,IP:$lan"
    certificate to-kubelet /O=system:masters/CN=to-kubelet
    certificate controller-manager /CN=system:kube-controller-manager
    certificate scheduler /CN=system:kube-scheduler
    certificate proxy /CN=system:kube-proxy
    for node in 1 2; do
        certificate node$node /O=system:nodes/CN=system:node:node$node "DNS:node$node,IP:10.89.0.1$node"
    done
    certificate admin /O=system:masters/CN=admin
    cd "$state"
    for user in controller-manager scheduler proxy node1 node2; do
        "$here/kubeconfig.sh" https://$lan:6443 pki $user >$user.kubeconfig
    done
    "$here/kubeconfig.sh" https://$lan:6443 pki admin >inside.kubeconfig
}

start() { # its log, the command
    local log=$1
    shift
    "$@" >"$state/$log.log" 2>&1 &
}
until_it() { until "$@" >/dev/null 2>&1; do sleep 0.1; done; }

control_plane() {
    # audit.log has every write: tests read there how many writes an idle minute has, and which RBAC rules are
    # used.
    echo '{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}' >audit.yaml
    mkdir -m 700 etcd
    start etcd etcd --data-dir etcd --unsafe-no-fsync --log-level warn
    apiserver
    until_it kubectl get --raw /readyz
    touch serves
    start controller-manager kube-controller-manager --kubeconfig=controller-manager.kubeconfig \
        --authentication-kubeconfig=controller-manager.kubeconfig --authorization-kubeconfig=controller-manager.kubeconfig \
        --service-account-private-key-file=pki/accounts.key --root-ca-file=pki/ca.crt --use-service-account-credentials \
        --leader-elect=false --node-monitor-grace-period=20s
    start scheduler kube-scheduler --kubeconfig=scheduler.kubeconfig --leader-elect=false
}

# Restarts the API server when it ends, because a test stops it for a while.
apiserver() {
    start apiserver sh -c 'until [ -e ended ]; do while [ -e apiserver.off ]; do sleep 0.1; done; "$@" & echo $! >apiserver.pid; wait $!; done' sh \
        kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address=$lan --secure-port=6443 \
        --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
        --kubelet-client-certificate=pki/to-kubelet.crt --kubelet-client-key=pki/to-kubelet.key \
        --kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/accounts.pub \
        --service-account-signing-key-file=pki/accounts.key --service-cluster-ip-range=$services \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --audit-log-path=audit.log --audit-policy-file=audit.yaml
}

# Runs CoreDNS as a process behind a Service without selector, so that DNS works in every pod and needs no
# image.
names() {
    printf 'cluster.local:5353 {\n  errors\n  kubernetes cluster.local {\n    kubeconfig inside.kubeconfig\n    ttl 5\n  }\n}\n' >Corefile
    start coredns coredns -conf Corefile
    kubectl apply -f - <<END
apiVersion: v1
kind: Service
metadata: { name: kube-dns, namespace: kube-system }
spec:
  clusterIP: $dns
  ports:
    - { name: dns, port: 53, targetPort: 5353, protocol: UDP }
    - { name: dns-tcp, port: 53, targetPort: 5353, protocol: TCP }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: kube-dns-1, namespace: kube-system, labels: { kubernetes.io/service-name: kube-dns } }
addressType: IPv4
ports: [{ name: dns, port: 5353, protocol: UDP }, { name: dns-tcp, port: 5353, protocol: TCP }]
endpoints: [{ addresses: [$lan] }]
END
}

hide_the_machine
network
certificates
for node in 1 2; do start node$node nsenter --net=/run/netns/node$node "$here/node.sh" "$name" "$state" $node; done
control_plane
names
until_it kubectl wait --for=condition=Ready node/node1 node/node2 --timeout=1s
touch up
# As init, this script reaps every process that ends.
while true; do wait -n || [ $? != 127 ] || sleep 1; done
