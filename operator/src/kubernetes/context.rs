//! What all parts of the operator share: the API client, watches, rollout slots and views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use rowlock_crds::{ConditionReason, ConditionType, EventReason, TaskQueue, TaskQueueStatus, labels};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::kubernetes::api::changes::Changes;
use crate::kubernetes::api::events::NewEvent;
use crate::kubernetes::api::kept::Metadata;
use crate::kubernetes::api::leader_election::Leadership;
use crate::kubernetes::api::objects::{NamespaceWatch, Objects};
use crate::kubernetes::api::readable::ReceivedTaskQueue;
use crate::kubernetes::api::watch::{Handling, WatchedStore, without_status};
use crate::kubernetes::api::writer::{WriteError, Writer, bounded};
use crate::kubernetes::config::Config;
use crate::kubernetes::database::source::Source;
use crate::kubernetes::desired::owner;
use crate::kubernetes::rollouts::{NamespacedName, Rollouts, is_in_progress};
use crate::kubernetes::totals::{Canaries, Rescues, ScaleIns};
use crate::shared_poller::SharedPoller;
use crate::view::View;

pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) writer: Writer,
    pub(crate) leadership: Leadership,
    /// The uid of the cluster, which is part of the owner of a queue.
    pub(crate) cluster: String,
    pub(crate) task_queues: WatchedStore<ReceivedTaskQueue>,
    /// Permits to write the objects of a queue.
    pub(crate) writes: Semaphore,
    /// Notified of each change of a `TaskQueue`.
    pub(crate) changes: Changes,
    pub(crate) rescues: Rescues,
    pub(crate) scale_ins: ScaleIns,
    pub(crate) canaries: Canaries,
    views: Mutex<BTreeMap<Source, Arc<View>>>,
    /// The watch of all namespaces, where the rights suffice for it.
    everywhere: Mutex<Option<Arc<Objects>>>,
    namespaces: Mutex<BTreeMap<String, Weak<NamespaceWatch>>>,
    shared_pollers: Mutex<BTreeMap<String, Weak<SharedPoller>>>,
    rollouts: Mutex<Rollouts>,
    /// The Deployments that hold a rollout slot, and when they were looked for.
    in_progress: Mutex<Option<(Arc<BTreeSet<NamespacedName>>, Instant)>>,
}

/// How many queues are written at the same time, over all databases: each takes about 150 KiB, for its
/// objects and for a connection. After a start, the API server is slower than even this many.
pub(crate) const WRITTEN_AT_ONCE: usize = 64;

/// How long that may be reused, so that a thousand queues that wait for a slot do not each look through a
/// thousand Deployments. A slot taken since is known anyway, and one released since is free a little later.
const IN_PROGRESS_VALID_FOR: Duration = Duration::from_millis(300);

/// How many statuses a second may be written for changed numbers, over all `TaskQueues`. Each is a write of
/// some KiB to etcd, which on slow disks manages a few hundred a second for the whole cluster.
const NUMBERS_PER_SECOND: u32 = 5;

/// The shortest interval between writes of the numbers of one status.
const NUMBERS_INTERVAL: Duration = Duration::from_secs(10);

/// The interval between writes of numbers, by the number of `TaskQueues`.
fn numbers_interval(task_queues: usize) -> Duration {
    let task_queues = u32::try_from(task_queues).unwrap_or(u32::MAX);
    NUMBERS_INTERVAL.max(Duration::from_secs(1) / NUMBERS_PER_SECOND * task_queues)
}

/// A `TaskQueue` that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) generation: Option<i64>,
    pub(crate) error: String,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        config: Config,
        writer: Writer,
        leadership: Leadership,
        cluster: String,
        watches_everywhere: bool,
    ) -> Self {
        let changes = Changes::default();
        let detail = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let api = match &detail(&config.namespace) {
            Some(namespace) => kube::Api::namespaced(client.clone(), namespace),
            None => kube::Api::all(client.clone()),
        };
        let selector = match detail(&config.class) {
            Some(class) => format!("{}={class}", labels::CLASS),
            None => format!("!{}", labels::CLASS),
        };
        let handling =
            Handling { fingerprint: Some(without_status), ..Handling::keep(ReceivedTaskQueue::trimmed) };
        let task_queues = WatchedStore::start(api, &selector, &changes, handling);
        let everywhere = watches_everywhere.then(|| Arc::new(Objects::start(&client, None)));
        let at_once = usize::try_from(config.rollouts_at_once).unwrap_or(usize::MAX);
        Self {
            client,
            config,
            writer,
            leadership,
            cluster,
            task_queues,
            writes: Semaphore::new(WRITTEN_AT_ONCE),
            changes,
            rescues: Rescues::default(),
            scale_ins: ScaleIns::default(),
            canaries: Canaries::default(),
            views: Mutex::default(),
            everywhere: Mutex::new(everywhere),
            namespaces: Mutex::default(),
            shared_pollers: Mutex::default(),
            rollouts: Mutex::new(Rollouts::new(at_once)),
            in_progress: Mutex::default(),
        }
    }

    /// The watches of a namespace, shared by its controllers.
    pub(crate) fn namespace(&self, name: &str) -> Arc<NamespaceWatch> {
        let everywhere = lock(&self.everywhere).clone();
        get_or_insert(&self.namespaces, name, || {
            let objects = everywhere.unwrap_or_else(|| Arc::new(Objects::start(&self.client, Some(name))));
            NamespaceWatch::new(name, objects)
        })
    }

    /// Gives up the watch of all namespaces, if the API server refuses it by now. Returns whether it did:
    /// then the controllers need the watches of their namespaces.
    pub(crate) fn give_up_everywhere(&self) -> bool {
        let refused = |objects: &mut Arc<Objects>| objects.refusal().is_some();
        let refused = lock(&self.everywhere).take_if(refused).is_some();
        if refused {
            lock(&self.namespaces).clear();
        }
        refused
    }

    /// The poller that the controllers of one namespace share for a database of this identity. Controllers of
    /// different namespaces share none, since a tenant's server can claim any identity.
    pub(crate) fn shared_poller(&self, namespace: &str, identity: &str) -> Arc<SharedPoller> {
        get_or_insert(&self.shared_pollers, &format!("{namespace}/{identity}"), SharedPoller::default)
    }

    /// Takes a rollout slot for a change of pods that the operator causes; `false` while all are taken.
    pub(crate) fn take_rollout_slot(&self, name: &NamespacedName) -> bool {
        let in_progress = self.in_progress();
        in_progress.is_some_and(|in_progress| lock(&self.rollouts).take(name, &in_progress, Instant::now()))
    }

    /// Releases a rollout slot that is not used.
    pub(crate) fn release_rollout_slot(&self, name: &NamespacedName) {
        lock(&self.rollouts).release(name);
    }

    /// Deployments that hold a rollout slot; `None` until all watches are complete.
    fn in_progress(&self) -> Option<Arc<BTreeSet<NamespacedName>>> {
        let mut known = lock(&self.in_progress);
        if let Some((found, _)) = known.as_ref().filter(|(_, at)| at.elapsed() < IN_PROGRESS_VALID_FOR) {
            return Some(Arc::clone(found));
        }
        let found = Arc::new(self.find_in_progress()?);
        *known = Some((Arc::clone(&found), Instant::now()));
        Some(found)
    }

    fn find_in_progress(&self) -> Option<BTreeSet<NamespacedName>> {
        let mut found = BTreeSet::new();
        let everywhere = lock(&self.everywhere).clone();
        let namespaces: Vec<_> = if let Some(objects) = everywhere {
            vec![objects]
        } else {
            let namespaces = lock(&self.namespaces);
            namespaces.values().filter_map(Weak::upgrade).map(|one| Arc::clone(&one.objects)).collect()
        };
        for objects in namespaces {
            if !objects.is_complete() && objects.refusal().is_none() {
                return None;
            }
            let all = objects.deployments.all();
            let those = all.iter().filter(|one| is_in_progress(one));
            let name = |one: &Metadata| {
                (one.namespace.clone().unwrap_or_default(), one.name.clone().unwrap_or_default())
            };
            found.extend(those.map(|one| name(&one.metadata)));
        }
        Some(found)
    }

    /// How many Deployments hold a rollout slot, and how many wait for one.
    pub(crate) fn rollouts(&self) -> (usize, usize) {
        let in_progress = self.in_progress().map_or(0, |in_progress| in_progress.len());
        (in_progress, lock(&self.rollouts).waiting(Instant::now()))
    }

    /// The interval between writes of the numbers of a status.
    pub(crate) fn numbers_interval(&self) -> Duration {
        numbers_interval(self.task_queues.len())
    }

    /// The `TaskQueues` that this release can read and that are not being deleted.
    pub(crate) fn readable(&self) -> Vec<Arc<TaskQueue>> {
        self.readable_where(|_| true)
    }

    pub(crate) fn queues_of(&self, of: &Source) -> Vec<Arc<TaskQueue>> {
        self.readable_where(|one| of.is_of(one))
    }

    fn readable_where(&self, wanted: impl Fn(&TaskQueue) -> bool) -> Vec<Arc<TaskQueue>> {
        let all = self.task_queues.all();
        let readable = all.iter().filter_map(|one| one.0.as_ref().ok());
        let those = readable.filter(|one| one.metadata.deletion_timestamp.is_none() && wanted(one));
        those.cloned().collect()
    }

    /// The owners of all queues of a namespace.
    pub(crate) fn owners(&self, namespace: &str) -> BTreeSet<String> {
        let all = self.task_queues.all();
        let those = all.iter().filter_map(|one| one.0.as_ref().ok());
        let those = those.filter(|one| one.metadata.namespace.as_deref() == Some(namespace));
        those.map(|one| owner(one, &self.cluster)).collect()
    }

    pub(crate) fn unreadable(&self) -> Vec<Unreadable> {
        let all = self.task_queues.all();
        let unreadable = all.iter().filter_map(|one| one.0.as_ref().err());
        unreadable
            .map(|one| Unreadable {
                namespace: one.metadata.namespace.clone().unwrap_or_default(),
                name: one.metadata.name.clone().unwrap_or_default(),
                generation: one.metadata.generation,
                error: one.error.clone(),
            })
            .collect()
    }

    /// Sets or removes the last view of a database.
    pub(crate) fn set_view(&self, source: &Source, view: Option<Arc<View>>) {
        let mut views = lock(&self.views);
        match view {
            Some(view) => drop(views.insert(source.clone(), view)),
            None => drop(views.remove(source)),
        }
    }

    /// The last view of each database, for metrics.
    pub(crate) fn views(&self) -> Vec<(Source, Arc<View>)> {
        lock(&self.views).iter().map(|(source, view)| (source.clone(), Arc::clone(view))).collect()
    }

    pub(crate) async fn write_status(
        &self,
        one: &TaskQueue,
        status: &TaskQueueStatus,
    ) -> Result<(), WriteError> {
        let namespace = one.namespace().unwrap_or_default();
        self.writer.write_status(&namespace, &one.name_any(), &json!(status)).await
    }

    /// Initialises the scale of a `TaskQueue`, if it is still unset. The watch may lag, so this reads the
    /// object first, by a list, since RBAC grants no get.
    pub(crate) async fn start_scale(&self, one: &TaskQueue, replicas: u32) -> Result<(), WriteError> {
        let api: Api<TaskQueue> = Api::namespaced(self.client.clone(), &one.namespace().unwrap_or_default());
        let name = ListParams::default().fields(&format!("metadata.name={}", one.name_any()));
        let found = bounded(api.list(&name)).await?;
        match found.items.first().filter(|found| found.spec.workers.replicas.is_none()) {
            Some(found) => {
                let found = Metadata::from(found.metadata.clone());
                self.writer.set_scale::<TaskQueue>(&found, replicas).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Publishes events about changed conditions.
    pub(crate) async fn publish_events(
        &self,
        regarding: &ObjectReference,
        before: &TaskQueueStatus,
        after: &TaskQueueStatus,
        pod: Option<ObjectReference>,
    ) {
        let other = before.observed_generation != after.observed_generation;
        for now in &after.conditions {
            let then = before.conditions.iter().find(|one| one.type_ == now.type_);
            let ready = is_of(now, ConditionType::Ready, "True");
            // After a change of the spec, another message of the same reason is a new event.
            let same = then.is_some_and(|then| {
                let detail = then.reason == now.reason && (!other || then.message == now.message);
                then.status == now.status && (ready || detail)
            });
            if same || !(ready || is_worth_a_warning(now)) {
                continue;
            }
            let action = EventReason::Ready.action();
            let new_event = NewEvent {
                regarding,
                related: None,
                warning: !ready,
                reason: &now.reason,
                action,
                note: now.message.clone(),
            };
            let new_event = if ready {
                let note = format!("the queue is processing tasks: {}", now.message);
                NewEvent { reason: EventReason::Ready.as_str(), note, ..new_event }
            } else {
                let related = pod.clone().filter(|_| is_of(now, ConditionType::HandlerHealthy, "False"));
                NewEvent { related, ..new_event }
            };
            self.writer.publish_event(&new_event).await;
        }
    }
}

pub(crate) fn is_of(condition: &Condition, type_: ConditionType, status: &str) -> bool {
    condition.type_ == type_.as_str() && condition.status == status
}

fn is_worth_a_warning(condition: &Condition) -> bool {
    let reason = |reason: ConditionReason| condition.reason == reason.as_str();
    is_of(condition, ConditionType::Stalled, "True")
        || is_of(condition, ConditionType::HandlerHealthy, "False")
        || reason(ConditionReason::DatabaseChanged)
        || reason(ConditionReason::Connections)
}

/// The value of that name. It is created if no reference to it is left.
fn get_or_insert<T>(all: &Mutex<BTreeMap<String, Weak<T>>>, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
    let mut all = lock(all);
    all.retain(|_, one| one.strong_count() > 0);
    let known = all.get(name).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        let one = Arc::new(make());
        all.insert(name.to_owned(), Arc::downgrade(&one));
        one
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_task_queues_are_each_written_less_often() {
        for (task_queues, seconds) in [(0, 10), (1, 10), (50, 10), (100, 20), (1000, 200)] {
            assert_eq!(numbers_interval(task_queues), Duration::from_secs(seconds));
        }
    }
}
