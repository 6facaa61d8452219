#!/bin/bash
# Prints a kubeconfig: kubeconfig.sh SERVER PKI-FOLDER USER
set -eu
data() { base64 -w0 <"$1"; }
cat <<END
apiVersion: v1
kind: Config
current-context: rowlock
contexts: [{ name: rowlock, context: { cluster: rowlock, user: $3 } }]
clusters: [{ name: rowlock, cluster: { server: "$1", certificate-authority-data: $(data "$2/ca.crt") } }]
users: [{ name: $3, user: { client-certificate-data: $(data "$2/$3.crt"), client-key-data: $(data "$2/$3.key") } }]
END
