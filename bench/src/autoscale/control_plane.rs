//! The controllers of Kubernetes and KEDA, as processes beside the API server.
//!
//! KEDA's metrics server is behind the API server's aggregation layer, as in every cluster. Its Service
//! resolves to this machine. Everything listens on loopback, except the port with the metrics server's own
//! metrics, whose address cannot be set.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::json;
use tokio::process::Child;

use super::objects::namespace;
use crate::operator::cluster::{Cluster, build, free_ports, launch};

/// The namespace of KEDA.
const KEDA: &str = "keda";

/// The name under which the API server calls other API servers.
const FRONT_PROXY: &str = "front-proxy-client";

/// The controllers that scaling needs. Without those of nodes, nobody minds that pods are on none.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,horizontal-pod-autoscaler-controller";

/// Dropping it stops everything.
pub(super) struct ControlPlane {
    pub(super) cluster: Cluster,
    pub(super) versions: Versions,
    _processes: [Child; 3],
}

#[derive(Debug)]
pub(super) struct Versions {
    pub(super) kubernetes: String,
    pub(super) keda: String,
}

impl ControlPlane {
    pub(super) async fn start() -> Result<Self> {
        let names = ["kube-controller-manager", "keda-operator", "keda-adapter", "keda-crds"];
        let programs = build(&names).await?;
        let [controllers, operator, adapter, crds] = &programs[..] else {
            anyhow::bail!("tests/cluster/build.sh names four programs")
        };
        let folder = tempfile::tempdir()?;
        let certificates = folder.path().join("certificates-of-keda");
        fs::create_dir(&certificates)?;
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        certify(&certificates, "ca.crt", ["tls.crt", "tls.key"], &usages)?;
        certify(folder.path(), "proxy-ca.crt", ["proxy.crt", "proxy.key"], &usages[1..])?;
        let cluster = Cluster::start_with(folder, &aggregation()).await?;
        let folder = cluster.folder.path();
        let [grpc, secure] = free_ports()?;
        let kubeconfig = cluster.file("kubeconfig").display().to_string();
        let controllers_args = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--controllers={CONTROLLERS}"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let environment = [
            ("KUBECONFIG", &*kubeconfig),
            ("POD_NAMESPACE", KEDA),
            ("KEDA_CLUSTER_OBJECT_NAMESPACE", KEDA),
            ("WATCH_NAMESPACE", ""),
        ];
        let crds = crds.display().to_string();
        cluster.kubectl(&["apply", "--server-side", "-f", &crds], "").await?;
        until_established(&cluster).await?;
        cluster.create(&[namespace(KEDA)], None).await?;
        let processes = [
            launch(controllers, folder, "controllers.log", &controllers_args, &[])?,
            launch(operator, folder, "keda.log", &operator_args(grpc), &environment)?,
            launch(
                adapter,
                folder,
                "keda-adapter.log",
                &adapter_args(&kubeconfig, grpc, secure),
                &environment,
            )?,
        ];
        register(&cluster, secure).await?;
        let versions = Versions { kubernetes: version(controllers)?, keda: version(operator)? };
        Ok(Self { cluster, versions, _processes: processes })
    }

    /// The end of each log, to find out what does not start.
    pub(super) fn last_lines(&self) -> String {
        let logs = ["operator.log", "controllers.log", "keda.log", "keda-adapter.log"];
        let ends = logs.map(|log| {
            let text = fs::read_to_string(self.cluster.file(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("{log}:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"))
        });
        format!("not ready in time; the last lines of logs:\n{}", ends.join("\n"))
    }
}

/// Waits until the API server serves all custom resources.
pub(super) async fn until_established(cluster: &Cluster) -> Result<()> {
    let args = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
    cluster.kubectl(&args, "").await.map(drop)
}

/// The flags with which an API server forwards requests to other API servers.
fn aggregation() -> [String; 8] {
    [
        // KEDA's metrics server asks for the authority of clients, too. No client has a certificate.
        "--client-ca-file=certificates-of-keda/ca.crt".to_owned(),
        "--requestheader-client-ca-file=proxy-ca.crt".to_owned(),
        format!("--requestheader-allowed-names={FRONT_PROXY}"),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--proxy-client-cert-file=proxy.crt".to_owned(),
        "--proxy-client-key-file=proxy.key".to_owned(),
    ]
}

fn operator_args(grpc: u16) -> [String; 6] {
    [
        "--metrics-bind-address=0".to_owned(),
        "--health-probe-bind-address=0".to_owned(),
        format!("--metrics-service-bind-address=127.0.0.1:{grpc}"),
        "--cert-dir=certificates-of-keda".to_owned(),
        "--enable-webhook-patching=false".to_owned(),
        "--enable-apiservice-patching=false".to_owned(),
    ]
}

fn adapter_args(kubeconfig: &str, grpc: u16, secure: u16) -> [String; 10] {
    [
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={secure}"),
        // Its metrics: any free port.
        "--port=0".to_owned(),
        format!("--metrics-service-address=127.0.0.1:{grpc}"),
        "--cert-dir=certificates-of-keda".to_owned(),
        "--tls-cert-file=certificates-of-keda/tls.crt".to_owned(),
        "--tls-private-key-file=certificates-of-keda/tls.key".to_owned(),
        format!("--lister-kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
    ]
}

/// Tells the API server where KEDA answers with external metrics.
async fn register(cluster: &Cluster, port: u16) -> Result<()> {
    let name = "keda-metrics-apiserver";
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": KEDA },
        "spec": { "type": "ExternalName", "externalName": "localhost" }
    });
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": "v1beta1.external.metrics.k8s.io" },
        "spec": {
            "group": "external.metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100,
            // It never leaves this machine.
            "insecureSkipTLSVerify": true,
            "service": { "name": name, "namespace": KEDA, "port": port }
        }
    });
    cluster.create(&[service, api], None).await
}

/// Writes a CA, and a certificate with its key that are good for these purposes.
fn certify(
    folder: &Path,
    ca: &str,
    [certificate, key]: [&str; 2],
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<()> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "rowlock-bench");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, FRONT_PROXY);
    params.extended_key_usages = usages.to_vec();
    let pair = KeyPair::generate()?;
    fs::write(folder.join(ca), issuer.pem())?;
    fs::write(folder.join(certificate), params.signed_by(&pair, &issuer)?.pem())?;
    Ok(fs::write(folder.join(key), pair.serialize_pem())?)
}

/// The version in the path of a program that `build` returned: `…/keda-2.21.0/keda-operator`.
fn version(program: &Path) -> Result<String> {
    let folder = program.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let version = folder.and_then(|name| name.rsplit_once('-'));
    Ok(version.context("no version in the path of a program")?.1.to_owned())
}
