//! The pods of a queue, neutral to where they run: as processes or in a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rowlock_crds::{Manifest, env};

/// What a stop may take beside the tasks that still run: the last settlements and the way out.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// All instances that a queue should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Name of the queue in the database.
    pub queue: String,
    /// The instances, in a stable order: a smaller fleet is the front of a larger one.
    pub instances: Vec<Instance>,
}

/// A worker with the handler beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Unique among the instances of its queue.
    pub name: String,
    /// The worker's environment, without the connection string, which only the backend knows.
    pub worker_env: BTreeMap<&'static str, String>,
    /// The environment of the handler.
    pub handler_env: BTreeMap<&'static str, String>,
    /// How long to wait between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// Where an instance listens: the backend knows, since processes share a host and pods do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Port of the handler.
    pub handler_port: u16,
    /// Port of the worker's health and metrics; 0 for any.
    pub worker_port: u16,
}

/// The fleet of a queue with this many pods.
///
/// ```
/// use rowlock_crds::{Manifest, TaskQueueSpec, env};
/// use rowlock_plan::{Ports, fleet};
/// let manifest = Manifest::new("emails", TaskQueueSpec::with_workers(20));
/// let ports = |index: u16| Ports { handler_port: 9000 + index, worker_port: 0 };
/// let fleet = fleet(&manifest, 2, ports);
/// assert_eq!(fleet.instances[1].name, "emails-1");
/// assert_eq!(fleet.instances[1].worker_env[env::HANDLER_URL], "http://127.0.0.1:9001/tasks");
/// assert_eq!(fleet.instances[1].handler_env[env::HANDLER_PORT], "9001");
/// ```
#[must_use]
pub fn fleet(manifest: &Manifest, pods: u16, ports: impl Fn(u16) -> Ports) -> Fleet {
    let instances = (0..pods).map(|index| instance(manifest, index, ports(index))).collect();
    Fleet { queue: manifest.queue_name().to_owned(), instances }
}

fn instance(manifest: &Manifest, index: u16, ports: Ports) -> Instance {
    let spec = &manifest.spec;
    let name = format!("{}-{index}", manifest.name);
    let Ports { handler_port, worker_port } = ports;
    let handler_url = format!("http://127.0.0.1:{handler_port}{}", spec.handler.http.path);
    let worker_env = BTreeMap::from([
        (env::QUEUE, manifest.queue_name().to_owned()),
        (env::SLOTS, spec.workers.per_pod.to_string()),
        (env::HANDLER_URL, handler_url),
        (env::LISTEN, format!("127.0.0.1:{worker_port}")),
        // A task that started just before the stop may still take all its time.
        (env::DRAIN_GRACE, spec.timeout.to_string()),
        (env::INSTANCE_NAME, name.clone()),
    ]);
    let handler_env = BTreeMap::from([(env::HANDLER_PORT, handler_port.to_string())]);
    let grace = spec.timeout.as_duration().saturating_add(DRAIN_MARGIN);
    Instance { name, worker_env, handler_env, grace }
}
