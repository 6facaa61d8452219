//! Watches of the objects in the cluster.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watching};
use kube::{Api, Client, Resource};
use rowlock_crds::api::FIELD_MANAGER;
use rowlock_crds::{containers, labels};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::kubernetes::api::field_managers;
use crate::kubernetes::api::writer::detail;
use crate::kubernetes::pods::status::{has_ended, is_ready, runs};

/// Back-off before a broken watch is restarted. It is short, so that newly granted rights take effect soon.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How long a refusal counts: while it lasts, the server repeats it after each back-off.
const REFUSAL_VALID_FOR: Duration = MAX_BACKOFF.saturating_mul(3);

/// How long one watch request lasts before the next continues it: nearly the longest that `kube` allows,
/// since each costs the API server a request per kind and namespace. Bookmarks arrive every minute; without
/// them the client's `read_timeout` ends a watch whose server has vanished.
const WATCH_SECONDS: u32 = 290;

/// A back-off that doubles.
struct WatchBackoff(Duration);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let next = (self.0 * 2).min(MAX_BACKOFF);
        Some(std::mem::replace(&mut self.0, next))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = MIN_BACKOFF;
    }
}

/// The current objects of one kind.
#[derive(Debug)]
pub(crate) struct WatchedStore<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    complete: Arc<AtomicBool>,
    refusal: Arc<Mutex<Option<(Instant, String)>>>,
    task: JoinHandle<()>,
}

impl<K> WatchedStore<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts the watch. `trim` removes from each object what is not needed. `changed` is notified of each
    /// change, unless `fingerprint` stays the same.
    pub(crate) fn start(
        api: Api<K>,
        selector: &str,
        changed: &watch::Sender<()>,
        trim: fn(&mut K),
        fingerprint: Option<fn(&K) -> u64>,
    ) -> Self {
        let (store, writer) = reflector::store();
        let complete = Arc::new(AtomicBool::new(false));
        let refusal = Arc::new(Mutex::new(None));
        let config = watcher::Config::default().labels(selector).timeout(WATCH_SECONDS);
        let stream = watching(api, config).backoff(WatchBackoff(MIN_BACKOFF)).modify(trim).reflect(writer);
        let note = (Arc::clone(&complete), Arc::clone(&refusal), changed.clone());
        let task = tokio::spawn(async move {
            let (complete, refusal, changed) = note;
            let mut stream = std::pin::pin!(stream);
            let mut fingerprints = HashMap::new();
            while let Some(event) = stream.next().await {
                match &event {
                    // Sent before the first request.
                    Ok(Event::Init) => {
                        fingerprints.clear();
                        continue;
                    }
                    Ok(Event::InitDone) => complete.store(true, Ordering::Relaxed),
                    Ok(Event::Apply(object)) => {
                        let now = fingerprint.map(|fingerprint| fingerprint(object));
                        let before = fingerprints.insert(ObjectRef::from_obj(object), now);
                        if now.is_some() && before == Some(now) {
                            continue;
                        }
                    }
                    Ok(Event::Delete(object)) => drop(fingerprints.remove(&ObjectRef::from_obj(object))),
                    _ => (),
                }
                let refused = event.err().and_then(refusal_of::<K>);
                note_refusal(&mut refusal.lock().unwrap_or_else(PoisonError::into_inner), refused);
                changed.send_replace(());
            }
        });
        Self { store, complete, refusal, task }
    }

    /// Whether the first list is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Why the API server refuses the watch. An old refusal does not count: a watch that works again reports
    /// nothing until an object changes.
    pub(crate) fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.as_ref().filter(|(at, _)| at.elapsed() < REFUSAL_VALID_FOR).map(|(_, detail)| detail.clone())
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K::DynamicType: Hash + Eq + Clone,
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Drop for WatchedStore<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Remembers a refusal, and logs it when it changes.
fn note_refusal(refusal: &mut Option<(Instant, String)>, detail: Option<String>) {
    match (&refusal, &detail) {
        (Some((_, before)), Some(detail)) if before == detail => (),
        (_, Some(detail)) => tracing::warn!("{detail}"),
        (Some((_, before)), None) => tracing::info!(before, "the API server accepts a watch again"),
        (None, None) => (),
    }
    *refusal = detail.map(|detail| (Instant::now(), detail));
}

/// A fingerprint without the status, which only the operator writes.
pub(crate) fn without_status<K: Resource>(object: &K) -> u64 {
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    let deleted = meta.deletion_timestamp.is_some();
    (&meta.uid, meta.generation, deleted, &meta.labels, &meta.annotations).hash(&mut hasher);
    hasher.finish()
}

/// The refusal in an error: missing rights, or a missing kind.
fn refusal_of<K: Resource<DynamicType = ()>>(error: watcher::Error) -> Option<String> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status)
            if [403, 404].contains(&status.code) =>
        {
            Some(if status.code == 403 { status.message } else { unknown_kind::<K>() })
        }
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            tracing::warn!(error = detail(&error), "a watch failed; restarting it");
            None
        }
        WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

fn unknown_kind<K: Resource<DynamicType = ()>>() -> String {
    let (kinds, group) = (K::plural(&()), K::group(&()));
    format!("the API server does not know {kinds}.{group}: install the chart rowlock-crds")
}

/// The operator's objects in a namespace.
#[derive(Debug)]
pub(crate) struct NamespaceWatch {
    pub(crate) deployments: WatchedStore<Deployment>,
    pub(crate) budgets: WatchedStore<PodDisruptionBudget>,
    pub(crate) pods: WatchedStore<Pod>,
    pub(crate) changed: watch::Sender<()>,
}

impl NamespaceWatch {
    pub(crate) fn start(client: &Client, name: &str) -> Self {
        let changed = watch::Sender::new(());
        let selector = format!("{}={FIELD_MANAGER}", labels::MANAGED_BY);
        Self {
            deployments: WatchedStore::start(
                Api::namespaced(client.clone(), name),
                &selector,
                &changed,
                without_template,
                None,
            ),
            budgets: WatchedStore::start(
                Api::namespaced(client.clone(), name),
                &selector,
                &changed,
                without_managers,
                None,
            ),
            pods: WatchedStore::start(
                Api::namespaced(client.clone(), name),
                &selector,
                &changed,
                trim_pod,
                None,
            ),
            changed,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.deployments.is_complete() && self.budgets.is_complete() && self.pods.is_complete()
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.deployments.refusal().or_else(|| self.budgets.refusal()).or_else(|| self.pods.refusal())
    }

    /// The pods of a queue that are not being deleted.
    pub(crate) fn pods_of(&self, name: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.all();
        pods.retain(|pod| belongs_to(pod, name) && pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// How many pods of a queue hold connections, or will: those that stay, and terminating ones whose worker
    /// still runs. A terminating pod without a running worker holds none, even if its handler takes long to
    /// end.
    pub(crate) fn count_pods(&self, name: &str) -> (u32, u32) {
        let (mut staying, mut terminating) = (0, 0);
        for pod in self.pods.all().iter().filter(|pod| belongs_to(pod, name) && !has_ended(pod)) {
            match pod.metadata.deletion_timestamp {
                None => staying += 1,
                Some(_) => terminating += u32::from(runs(pod, containers::WORKER)),
            }
        }
        (staying, terminating)
    }
}

fn without_managers(budget: &mut PodDisruptionBudget) {
    budget.metadata.managed_fields = None;
}

/// Keeps the foreign field managers of a Deployment, and removes its template.
fn without_template(deployment: &mut Deployment) {
    field_managers::trim(&mut deployment.metadata);
    if let Some(spec) = &mut deployment.spec {
        spec.template = PodTemplateSpec::default();
    }
}

/// Keeps the labels and status of a pod, and until it is ready, the parts of its containers that explain why
/// it is not.
fn trim_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    let ready = is_ready(pod);
    pod.spec = pod.spec.take().filter(|_| !ready).map(|spec| PodSpec {
        containers: spec.containers.into_iter().map(outline).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(outline).collect()),
        node_name: spec.node_name,
        ..PodSpec::default()
    });
}

fn outline(container: Container) -> Container {
    Container {
        name: container.name,
        restart_policy: container.restart_policy,
        liveness_probe: container.liveness_probe,
        readiness_probe: container.readiness_probe,
        startup_probe: container.startup_probe,
        ..Container::default()
    }
}

fn belongs_to(pod: &Pod, name: &str) -> bool {
    let of = pod.metadata.labels.as_ref().and_then(|labels| labels.get(labels::TASK_QUEUE));
    of.is_some_and(|of| of == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rowlock_crds::TaskQueue;

    #[test]
    fn a_refusal_is_reported_and_a_passing_error_is_not() {
        let detail = |code: u16| {
            let status = serde_json::json!({ "status": "Failure", "message": "no", "code": code });
            refusal_of::<TaskQueue>(watcher::Error::WatchError(serde_json::from_value(status).unwrap()))
        };
        assert_eq!(detail(403).as_deref(), Some("no"));
        assert!(
            detail(404).is_some_and(
                |detail| detail.contains("taskqueues.rowlock.dev: install the chart rowlock-crds")
            )
        );
        assert_eq!(detail(410), None);
    }
}
