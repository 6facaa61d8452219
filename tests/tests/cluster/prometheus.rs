//! A real Prometheus in the cluster's network, which scrapes the operator and the workers by the addresses of
//! their pods, and evaluates the alerts of the chart as they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rowlock_tests::alerts::RULES;
use rowlock_tests::checkout;
use rowlock_tests::prometheus::Prometheus;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{OPERATOR, cluster};
use crate::harness::{Harness, until};
use crate::pod_network::PodNetwork;

/// How often it looks for pods that are new or gone.
const DISCOVERY: Duration = Duration::from_secs(1);

/// The jobs of docs/observability.md: what they find, and the name of the port.
const JOBS: [(&str, &str, &str); 2] =
    [("operator", "app.kubernetes.io/name=rowlock-operator", "metrics"), ("workers", WORKERS, "rowlock")];
const WORKERS: &str = "rowlock.dev/task-queue";

pub(crate) struct Monitoring {
    prometheus: Prometheus,
    namespace: String,
    _discovery: AbortOnDropHandle<()>,
    _folder: TempDir,
}

impl Monitoring {
    /// Starts it for the operator and the workers of a test. `None`: the network of pods is not known.
    pub(crate) async fn start(harness: &Harness) -> Result<Option<Self>> {
        let PodNetwork::Inside(process) = cluster().pod_network else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("rowlock-targets-").tempdir()?;
        let file = |job: &str| folder.path().join(format!("{job}.json"));
        let mut discovered = Vec::new();
        for (job, label, port) in JOBS {
            let namespace = if job == "operator" { OPERATOR } else { &harness.namespace };
            let pods: Api<Pod> = Api::namespaced(harness.client.clone(), namespace);
            let discovery = Discovery { pods, label, port, file: file(job) };
            discovery.write().await?;
            discovered.push(discovery);
        }
        let discovery = tokio::spawn(async move {
            loop {
                tokio::time::sleep(DISCOVERY).await;
                for one in &discovered {
                    // The API server may be away for a while.
                    let _ = one.write().await;
                }
            }
        });
        let found = |job: &str| json!([{ "files": [file(job)], "refresh_interval": "1s" }]);
        let jobs = json!([
            { "job_name": "operator", "honor_labels": true, "file_sd_configs": found("operator") },
            { "job_name": "workers", "file_sd_configs": found("workers") },
        ]);
        let rules = fs::read_to_string(checkout().join(RULES))?;
        let prometheus = Prometheus::start_in(Some(process), &jobs, &[&rules]).await?;
        let namespace = harness.namespace.clone();
        Ok(Some(Self {
            prometheus,
            namespace,
            _discovery: AbortOnDropHandle::new(discovery),
            _folder: folder,
        }))
    }

    /// The alerts about the test's namespace, and about the operator, that have fired since it was started.
    pub(crate) async fn fired(&self) -> Result<BTreeSet<String>> {
        let about = format!("alertstate=\"firing\",namespace=~\"{}|{OPERATOR}\"", self.namespace);
        let fired = self.prometheus.query(&format!("count_over_time(ALERTS{{{about}}}[1h])")).await?;
        Ok(fired.into_iter().filter_map(|one| one.labels.get("alertname").cloned()).collect())
    }

    /// Fails unless operator and workers were scraped, and no alert has fired.
    pub(crate) async fn was_silent(&self) -> Result<()> {
        let namespace = &self.namespace;
        for expression in [
            "max_over_time(rowlock_operator_leader[1h]) == 1".to_owned(),
            format!("max_over_time(rowlock_queue_pods{{kind=\"ready\",namespace=\"{namespace}\"}}[1h]) > 0"),
            format!("max_over_time(rowlock_worker_tasks_claimed_total{{namespace=\"{namespace}\"}}[1h]) > 0"),
        ] {
            ensure!(!self.prometheus.query(&expression).await?.is_empty(), "nothing: {expression}");
        }
        let fired = self.fired().await?;
        ensure!(fired.is_empty(), "{fired:?}");
        Ok(())
    }

    /// Waits until an alert about the namespace fires, or does not.
    pub(crate) async fn until_firing(&self, alert: &str, firing: bool) -> Result<()> {
        let about = format!("alertname=\"{alert}\",alertstate=\"firing\",namespace=\"{}\"", self.namespace);
        let expression = format!("ALERTS{{{about}}}");
        until(&format!("{alert} fires: {firing}"), || async {
            let found = self.prometheus.query(&expression).await?;
            ensure!(found.is_empty() != firing, "{found:?}");
            Ok(())
        })
        .await
    }
}

/// Finds the pods of a job, as Prometheus itself would with `kubernetes_sd_configs`, which Debian's lacks.
struct Discovery {
    pods: Api<Pod>,
    label: &'static str,
    port: &'static str,
    file: PathBuf,
}

impl Discovery {
    async fn write(&self) -> Result<()> {
        let pods = self.pods.list(&ListParams::default().labels(self.label)).await?.items;
        let targets: Vec<Value> = pods.iter().filter_map(|pod| target(pod, self.port)).collect();
        // Prometheus must not read half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, json!(targets).to_string())?;
        Ok(fs::rename(&new, &self.file)?)
    }
}

/// The port of that name of a pod that has an address.
fn target(pod: &Pod, name: &str) -> Option<Value> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?;
    let ports = pod.spec.as_ref()?.containers.iter().flat_map(|one| one.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref() == Some(name))?.container_port;
    let labels = json!({ "namespace": pod.namespace()?, "pod": pod.name_any() });
    Some(json!({ "targets": [format!("{address}:{port}")], "labels": labels }))
}
