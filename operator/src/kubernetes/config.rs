//! Flags and environment of `rowlock-operator`.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use clap::Parser;
use k8s_openapi::api::core::v1::ResourceRequirements;
use rowlock_queue::{HostPolicy, Tenants};

use crate::kubernetes::deployment::inherited_metadata;
use crate::kubernetes::deployment::worker_image::WorkerImage;
use crate::kubernetes::deployment::worker_resources;
use crate::kubernetes::deployment::worker_tracing;

/// Runs and scales the pods of every `TaskQueue` of a cluster, and reports their state in its status
#[derive(Debug, Clone, Parser)]
#[command(name = "rowlock-operator", version)]
pub struct Config {
    /// Namespace of the `TaskQueues` [default: all]
    #[arg(long, env = "ROWLOCK_NAMESPACE")]
    pub namespace: Option<String>,
    /// Reconcile only `TaskQueues` whose label rowlock.dev/class has this value [default: those without the
    /// label]
    #[arg(long, env = "ROWLOCK_CLASS")]
    pub class: Option<String>,
    /// Image of the workers
    #[arg(long, env = "ROWLOCK_WORKER_IMAGE")]
    pub worker_image: String,
    /// When nodes pull that image: `Always`, `IfNotPresent` or `Never` [default: as Kubernetes does]
    #[arg(long, env = "ROWLOCK_WORKER_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub worker_pull_policy: Option<String>,
    /// Names of the Secrets for pulling that image, in addition to those of the template, separated by
    /// commas
    #[arg(long, env = "ROWLOCK_WORKER_PULL_SECRETS", value_delimiter = ',')]
    pub worker_pull_secrets: Vec<String>,
    /// Resources of the worker container: requests and limits, as JSON
    #[arg(long, env = "ROWLOCK_WORKER_RESOURCES")]
    #[arg(default_value = worker_resources::DEFAULT, value_parser = worker_resources::parse)]
    pub worker_resources: ResourceRequirements,
    /// Labels of the workers' Deployments, pods and disruption budgets, as JSON; labels of a `TaskQueue` or a
    /// template override them
    #[arg(long, env = "ROWLOCK_WORKER_LABELS")]
    #[arg(default_value = "{}", value_parser = inherited_metadata::parse)]
    pub worker_labels: BTreeMap<String, String>,
    /// Variables of OpenTelemetry for the workers, as JSON: `OTEL_EXPORTER_OTLP_ENDPOINT`, the http:// URL of
    /// a collector, and any others [default: no traces]
    #[arg(long, env = "ROWLOCK_WORKER_TRACING")]
    #[arg(default_value = "{}", hide_default_value = true, value_parser = worker_tracing::parse)]
    pub worker_tracing: BTreeMap<String, String>,
    /// How many queues may replace their pods at the same time after a new release of the operator, or
    /// another worker image, resources or tracing
    #[arg(long, env = "ROWLOCK_ROLLOUTS_AT_ONCE")]
    #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rollouts_at_once: u32,
    /// Database hosts to allow although the operator refuses their addresses by default (loopback,
    /// link-local, multicast, cloud metadata, the API server's Service) or by --refused-database-hosts:
    /// names, addresses and ranges such as 10.0.0.0/24, separated by commas
    #[arg(long, env = "ROWLOCK_ALLOWED_DATABASE_HOSTS", value_delimiter = ',', value_parser = host)]
    pub allowed_database_hosts: Vec<String>,
    /// More database hosts to refuse, such as the addresses of nodes and of the API server behind its
    /// Service: names, addresses and ranges such as 10.0.0.0/24, separated by commas
    #[arg(long, env = "ROWLOCK_REFUSED_DATABASE_HOSTS", value_delimiter = ',', value_parser = host)]
    pub refused_database_hosts: Vec<String>,
    /// The API server's host, from the client's configuration. Tenants' databases must not be there.
    #[arg(skip)]
    pub api_server: Option<String>,
    /// Limits on the connections to tenants' databases.
    #[arg(skip)]
    pub tenants: Arc<Tenants>,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "ROWLOCK_LISTEN", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9464)))]
    pub listen: SocketAddr,
    /// Namespace of the operator: of the Lease for leader election and of the service account
    #[arg(long, env = "POD_NAMESPACE", default_value = "rowlock")]
    pub lease_namespace: String,
    /// Name of that Lease
    #[arg(long, env = "ROWLOCK_LEASE", default_value = "rowlock-operator")]
    pub lease: String,
    /// Name of this replica in the Lease [default: the host's name and the process id]
    #[arg(long, env = "POD_NAME")]
    pub name: Option<String>,
    /// The service account it runs as, for the commands it prints
    #[arg(long, env = "ROWLOCK_SERVICE_ACCOUNT", default_value = "rowlock-operator")]
    pub service_account: String,
    /// The cluster role with its rights in a namespace, for the commands it prints
    #[arg(long, env = "ROWLOCK_CLUSTER_ROLE", default_value = "rowlock-operator-namespace")]
    pub cluster_role: String,
    /// Format of log lines: json or text
    #[arg(long, env = rowlock_crds::env::LOG_FORMAT, default_value = "json", value_parser = ["json", "text"])]
    pub log_format: String,
}

impl Config {
    /// The image of the workers, and the settings of their container.
    #[must_use]
    pub fn image(&self) -> WorkerImage {
        // An empty variable gives one empty name.
        let pull_secrets = self.worker_pull_secrets.iter().map(|name| name.trim().to_owned());
        WorkerImage {
            image: self.worker_image.clone(),
            pull_policy: self.worker_pull_policy.clone(),
            pull_secrets: pull_secrets.filter(|name| !name.is_empty()).collect(),
            resources: self.worker_resources.clone(),
            labels: self.worker_labels.clone(),
            tracing: self.worker_tracing.clone(),
        }
    }

    /// The database hosts that tenants' Secrets may name.
    pub(crate) fn host_policy(&self) -> HostPolicy {
        HostPolicy::new(
            &self.allowed_database_hosts,
            &self.refused_database_hosts,
            self.api_server.as_deref(),
        )
    }

    /// The only namespace that the operator reads; `None` if it reads all.
    #[must_use]
    pub fn only_namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|name| !name.is_empty())
    }

    /// This replica's name in the Lease. It changes when the container restarts in the same pod.
    #[must_use]
    pub fn identity(&self) -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = self.name.as_deref().unwrap_or(host.trim());
        format!("{name}-{}-{:08x}", std::process::id(), started())
    }
}

fn host(text: &str) -> Result<String, String> {
    HostPolicy::check(text).map(|()| text.to_owned())
}

/// The nanoseconds of the clock, to distinguish two processes with the same id.
fn started() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The chart's Deployment.
    const DEPLOYMENT: &str = include_str!("../../../charts/rowlock/templates/deployment.yaml");

    fn config(more: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["rowlock-operator", "--worker-image", "w"] as &[&str], more].concat())
    }

    #[test]
    fn the_range_of_rollouts_is_documented() {
        let page = include_str!("../../../docs/limits.md");
        assert!(page.contains("| `rowlock-operator --rollouts-at-once` | at least 1 |\n"));
        assert!(config(&["--rollouts-at-once", "1"]).is_ok());
        assert!(config(&["--rollouts-at-once", "0"]).is_err());
    }

    #[test]
    fn the_chart_sets_a_variable_for_each_flag_and_no_others() {
        let command = Config::command();
        let named = |name: &str| DEPLOYMENT.contains(&format!("- name: {name}\n"));
        let flags: Vec<&str> = command.get_arguments().filter_map(|flag| flag.get_env()?.to_str()).collect();
        for name in flags.iter().filter(|name| name.starts_with("ROWLOCK_")) {
            assert!(rowlock_crds::env::ALL.contains(name), "{name} would be refused as misspelt");
        }
        // The chart does not set the address to listen on, since it names the port.
        for name in flags.iter().filter(|name| **name != rowlock_crds::env::LISTEN) {
            assert!(named(name), "{name} is not in the chart");
        }
        let lines = DEPLOYMENT.lines().filter_map(|line| line.trim().strip_prefix("- name: "));
        for name in lines.filter(|name| name.starts_with("ROWLOCK_")) {
            assert!(flags.contains(&name), "there is no flag for {name}");
        }
    }

    #[test]
    fn flags_set_the_pull_secrets_and_resources_of_workers() {
        let image = config(&["--worker-pull-secrets", "a, b,", "--worker-resources", "{}"]).unwrap().image();
        assert_eq!(image.pull_secrets, ["a", "b"]);
        assert_eq!(image.resources, ResourceRequirements::default());
        let image = config(&[]).unwrap().image();
        assert!(image.pull_secrets.is_empty() && image.resources.requests.is_some());
    }

    #[test]
    fn an_invalid_range_of_hosts_is_an_error() {
        let error = config(&["--refused-database-hosts", "10.0.0.0/8,10.0.0.0/99"]).unwrap_err().to_string();
        assert!(error.contains("the prefix length of `10.0.0.0/99` does not fit"), "{error}");
        assert_eq!(config(&["--refused-database-hosts", ""]).unwrap().refused_database_hosts, [""]);
    }

    #[test]
    fn an_error_of_resources_names_the_flag_and_the_value() {
        let error = config(&["--worker-resources", r#"{"limits":{"cpu":"much"}}"#]).unwrap_err();
        let first = error.to_string().lines().next().unwrap().to_owned();
        assert!(first.contains("--worker-resources") && first.contains("`much` of cpu is not"), "{first}");
        assert_eq!(error.exit_code(), 2);
    }
}
