#!/bin/bash
# Runs one node in the network namespace that machine.sh made for it, until the cluster ends: node.sh NAME
# STATE-FOLDER NUMBER
set -euo pipefail
name=$1 state=$2 number=$3
node=node$number folder=$state/node$number socket=/run/node$number/containerd.sock
mkdir -p "$folder/cni" "$folder/kubelet" "$folder/logs" "$folder/plugins"

cat >"$folder/containerd.toml" <<END
version = 2
root = "$folder/containerd"
state = "/run/$node"
[grpc]
  address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$folder/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/rowlock-pause:1"
  # Without this, runc fails where CAP_SYS_RESOURCE is missing: "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$folder/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$folder/registries"
END

cat >"$folder/cni/10-bridge.conflist" <<END
{ "cniVersion": "0.4.0", "name": "bridge", "plugins": [
  { "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
    "ipam": { "type": "host-local", "dataDir": "$folder/addresses",
      "ranges": [[{ "subnet": "10.244.$number.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
END

printf 'nameserver 127.0.0.1\n' >"$folder/resolv.conf"
cat >"$folder/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /rowlock-$name-$node
failSwapOn: false
enforceNodeAllocatable: []
# No image may be removed, since there is no registry to pull it from again.
imageGCHighThresholdPercent: 100
evictionHard: { memory.available: 50Mi }
containerRuntimeEndpoint: unix://$socket
authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: $state/pki/ca.crt } }
authorization: { mode: Webhook }
tlsCertFile: $state/pki/$node.crt
tlsPrivateKeyFile: $state/pki/$node.key
resolvConf: $folder/resolv.conf
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
podLogsDir: $folder/logs
volumePluginDir: $folder/plugins
maxPods: 110
nodeStatusUpdateFrequency: 4s
syncFrequency: 10s
END

cat >"$folder/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
clientConnection: { kubeconfig: $state/proxy.kubeconfig }
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
hostnameOverride: $node
END

containerd -c "$folder/containerd.toml" >"$state/containerd$number.log" 2>&1 &
until ctr -a "$socket" version >/dev/null 2>&1; do sleep 0.05; done
# A kubelet that starts before the API server would back off for longer and longer.
until [ -e "$state/serves" ]; do sleep 0.05; done
# Both kubelets bind this socket, and no option changes its path. If they started at the same moment, one would
# fail.
[ "$number" = 1 ] || until [ -S /var/lib/kubelet/device-plugins/kubelet.sock ]; do sleep 0.05; done
kubelet --config="$folder/kubelet.yaml" --kubeconfig="$state/$node.kubeconfig" --hostname-override="$node" \
    --node-ip="10.89.0.1$number" --root-dir="$folder/kubelet" --cert-dir="$folder/pki" >"$state/kubelet$number.log" 2>&1 &
kube-proxy --config="$folder/proxy.yaml" >"$state/proxy$number.log" 2>&1 &
wait
