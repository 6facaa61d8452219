//! The objects of `TaskQueues` in the cluster, as the watches show them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, policy::v1 as policy};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, Resource};
use rowlock_crds::api::FIELD_MANAGER;
use rowlock_crds::{containers, labels};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};

use crate::kubernetes::api::changes::Changes;
use crate::kubernetes::api::kept::{Budget, Deployment, Metadata, Pod};
use crate::kubernetes::api::watch::{Handling, WatchedStore};
use crate::kubernetes::pods::ended_pods::EndedPods;
use crate::kubernetes::pods::handler_ends::HandlerEnds;
use crate::kubernetes::pods::status::{has_ended, runs};

/// The Deployments, disruption budgets and pods of `TaskQueues`, in one namespace or in all. Deployments of
/// users, and their pods, have the label of their `TaskQueue` only.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) deployments: WatchedStore<Deployment>,
    pub(crate) budgets: WatchedStore<Budget>,
    pub(crate) pods: WatchedStore<Pod>,
    pub(crate) ended_pods: Arc<EndedPods>,
    pub(crate) handler_ends: Arc<HandlerEnds>,
    changes: Changes,
}

impl Objects {
    pub(crate) fn start(client: &Client, namespace: Option<&str>) -> Self {
        let changes = Changes::default();
        let ours = format!("{}={FIELD_MANAGER}", labels::MANAGED_BY);
        let (ended_pods, handler_ends) = (Arc::new(EndedPods::default()), Arc::new(HandlerEnds::default()));
        let (ended, ends) = (Arc::clone(&ended_pods), Arc::clone(&handler_ends));
        // By the events: a pod that has ended is often deleted before the next pass.
        let keep_pod = move |pod: core::Pod| {
            let pod = Pod::from(pod);
            ended.note(&pod, Instant::now());
            ends.note(&pod, Instant::now(), Timestamp::now());
            pod.trimmed()
        };
        let deployments: Handling<apps::Deployment, _> = Handling::keep(Deployment::from);
        let budgets: Handling<policy::PodDisruptionBudget, _> = Handling::keep(Budget::from);
        let pods = Handling { task_queue: Some(task_queue_of), ..Handling::keep(keep_pod) };
        Self {
            deployments: start(client, namespace, labels::TASK_QUEUE, &changes, deployments),
            budgets: start(client, namespace, &ours, &changes, budgets),
            pods: start(client, namespace, labels::TASK_QUEUE, &changes, pods),
            ended_pods,
            handler_ends,
            changes,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.deployments.is_complete() && self.budgets.is_complete() && self.pods.is_complete()
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.deployments.refusal().or_else(|| self.budgets.refusal()).or_else(|| self.pods.refusal())
    }
}

fn start<K, V>(
    client: &Client,
    namespace: Option<&str>,
    selector: &str,
    changes: &Changes,
    handling: Handling<K, V>,
) -> WatchedStore<V>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
    V: Send + Sync + 'static,
{
    let api = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    WatchedStore::start(api, selector, changes, handling)
}

/// How many queues of a namespace are written at the same time. A webhook of a tenant that hangs holds no
/// more of [`WRITTEN_AT_ONCE`](crate::kubernetes::context::WRITTEN_AT_ONCE).
const WRITTEN_AT_ONCE: usize = 16;

/// One namespace of the operator's objects.
#[derive(Debug)]
pub(crate) struct NamespaceWatch {
    name: String,
    pub(crate) objects: Arc<Objects>,
    /// Permits to write the objects of a queue.
    pub(crate) writes: Semaphore,
}

impl NamespaceWatch {
    /// `objects`: of this namespace, or of all.
    pub(crate) fn new(name: &str, objects: Arc<Objects>) -> Self {
        Self { name: name.to_owned(), objects, writes: Semaphore::new(WRITTEN_AT_ONCE) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Notified of each change in this namespace.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.objects.changes.subscribe(Some(&self.name))
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.objects.is_complete()
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.objects.refusal()
    }

    pub(crate) fn deployment(&self, name: &str) -> Option<Arc<Deployment>> {
        self.objects.deployments.get(&self.name, name)
    }

    pub(crate) fn budget(&self, name: &str) -> Option<Arc<Budget>> {
        self.objects.budgets.get(&self.name, name)
    }

    /// The Deployment of this name, if it has the label of this `TaskQueue`.
    pub(crate) fn deployment_of(&self, name: &str, of: &str) -> Option<Arc<Deployment>> {
        self.deployment(name).filter(|one| task_queue(&one.metadata) == Some(of))
    }

    /// The pods of a queue that are not being deleted.
    pub(crate) fn pods_of(&self, name: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.all_pods_of(name);
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// How many pods of a queue hold connections, or will: those that stay, and terminating ones whose worker
    /// still runs. A terminating pod without a running worker holds none, even if its handler takes long to
    /// end.
    pub(crate) fn count_pods(&self, name: &str) -> (u32, u32) {
        let (mut staying, mut terminating) = (0, 0);
        for pod in self.all_pods_of(name).iter().filter(|pod| !has_ended(pod)) {
            match pod.metadata.deletion_timestamp {
                None => staying += 1,
                Some(_) => terminating += u32::from(runs(pod, containers::WORKER)),
            }
        }
        (staying, terminating)
    }

    fn all_pods_of(&self, name: &str) -> Vec<Arc<Pod>> {
        self.objects.pods.of(&self.name, name)
    }
}

fn task_queue_of(pod: &Pod) -> Option<&str> {
    task_queue(&pod.metadata)
}

fn task_queue(metadata: &Metadata) -> Option<&str> {
    metadata.labels.get(labels::TASK_QUEUE)
}
