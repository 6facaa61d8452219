//! Watches of the objects in the cluster.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watching};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::kubernetes::api::changes::Changes;
use crate::kubernetes::api::store::Store;
use crate::kubernetes::api::watch_backoff::{MAX_BACKOFF, WatchBackoff};
use crate::kubernetes::api::writer::detail;

/// How long a refusal counts: meanwhile the server repeats it after each back-off.
const REFUSAL_VALID_FOR: Duration = MAX_BACKOFF.saturating_mul(3);

/// How long one watch request lasts before the next continues it: nearly the longest that `kube` allows,
/// since each costs the API server a request per kind and namespace. Bookmarks arrive every minute; without
/// them the client's `read_timeout` ends a watch whose server has vanished.
const WATCH_SECONDS: u32 = 290;

/// How many objects a page of a list has. Each page is in memory as the API server sends it: a few MiB, where
/// the usual 500 Deployments take thirty.
const PAGE: u32 = 100;

/// What to do with the objects of a watch.
pub(crate) struct Handling<K, V> {
    /// Takes from each object what is needed.
    pub(crate) keep: Box<dyn Fn(K) -> V + Send>,
    /// A change after which this stays the same does not count.
    pub(crate) fingerprint: Option<fn(&K) -> u64>,
    /// The `TaskQueue` of an object, where its objects are asked for together.
    pub(crate) task_queue: Option<fn(&V) -> Option<&str>>,
}

impl<K, V> Handling<K, V> {
    pub(crate) fn keep(keep: impl Fn(K) -> V + Send + 'static) -> Self {
        Self { keep: Box::new(keep), fingerprint: None, task_queue: None }
    }
}

/// What is kept of the current objects of one kind.
pub(crate) struct WatchedStore<V> {
    state: Arc<State<V>>,
    task: JoinHandle<()>,
}

struct State<V> {
    store: Mutex<Store<V>>,
    complete: AtomicBool,
    refusal: Mutex<Option<(Instant, String)>>,
    version: AtomicU64,
}

impl<V: Send + Sync + 'static> WatchedStore<V> {
    /// Starts the watch. `changes` is notified of each change that counts.
    pub(crate) fn start<K>(api: Api<K>, selector: &str, changes: &Changes, handling: Handling<K, V>) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let Handling { keep, fingerprint, task_queue } = handling;
        let state = Arc::new(State {
            store: Mutex::new(Store::new(task_queue)),
            complete: AtomicBool::new(false),
            refusal: Mutex::new(None),
            version: AtomicU64::new(0),
        });
        let config = watcher::Config::default().labels(selector).timeout(WATCH_SECONDS).page_size(PAGE);
        let stream = watching(api, config).backoff(WatchBackoff::default());
        let (noted, changes) = (Arc::clone(&state), changes.clone());
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut fingerprints = HashMap::new();
            while let Some(event) = stream.next().await {
                let is_change = counts(&event, fingerprint, &mut fingerprints);
                let is_complete = matches!(event, Ok(Event::InitDone));
                let namespace = namespace_of(&event).map(str::to_owned);
                let refused = match event {
                    Ok(event) => {
                        lock(&noted.store).apply(event, &keep);
                        noted.version.fetch_add(1, Ordering::Relaxed);
                        None
                    }
                    Err(error) => refusal_of::<K>(error),
                };
                if !is_change {
                    continue;
                }
                if is_complete {
                    noted.complete.store(true, Ordering::Relaxed);
                }
                note_refusal(&mut lock(&noted.refusal), refused);
                changes.notify(namespace.as_deref());
            }
        });
        Self { state, task }
    }

    /// Whether the first list is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.state.complete.load(Ordering::Relaxed)
    }

    /// Why the API server refuses the watch. An old refusal does not count: a watch that works again reports
    /// nothing until an object changes.
    pub(crate) fn refusal(&self) -> Option<String> {
        let refusal = lock(&self.state.refusal);
        refusal.as_ref().filter(|(at, _)| at.elapsed() < REFUSAL_VALID_FOR).map(|(_, detail)| detail.clone())
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        lock(&self.state.store).get(namespace, name)
    }

    pub(crate) fn all(&self) -> Vec<Arc<V>> {
        lock(&self.state.store).all().cloned().collect()
    }

    /// Grows with each change, whether or not it counts.
    pub(crate) fn version(&self) -> u64 {
        self.state.version.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state.store).len()
    }

    /// The objects of one `TaskQueue`, at a cost that does not grow with the others.
    pub(crate) fn of(&self, namespace: &str, task_queue: &str) -> Vec<Arc<V>> {
        lock(&self.state.store).of(namespace, task_queue).collect()
    }
}

impl<V> Debug for WatchedStore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedStore").field("task", &self.task).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V> Drop for WatchedStore<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether what the store shows has changed. `fingerprints`: the last ones, by the UIDs of objects.
fn counts<K: Resource>(
    event: &watcher::Result<Event<K>>,
    fingerprint: Option<fn(&K) -> u64>,
    fingerprints: &mut HashMap<Option<String>, u64>,
) -> bool {
    match event {
        // Sent before the first request, and for each object before the list is complete.
        Ok(Event::Init | Event::InitApply(_)) => {
            fingerprints.clear();
            false
        }
        Ok(Event::Apply(object)) => fingerprint.is_none_or(|fingerprint| {
            let now = fingerprint(object);
            fingerprints.insert(object.meta().uid.clone(), now) != Some(now)
        }),
        Ok(Event::Delete(object)) => {
            fingerprints.remove(&object.meta().uid);
            true
        }
        Ok(Event::InitDone) | Err(_) => true,
    }
}

/// The namespace of a change; `None`: it may be in any.
fn namespace_of<K: Resource>(event: &watcher::Result<Event<K>>) -> Option<&str> {
    match event {
        Ok(Event::Apply(object) | Event::Delete(object)) => object.meta().namespace.as_deref(),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use rowlock_crds::TaskQueue;

    /// Before, each object of a list woke all controllers, thousands of times for thousands of pods.
    #[test]
    fn a_list_counts_once_and_a_change_of_the_status_alone_does_not() {
        let queue = |generation: u8, deleted: bool| {
            let mut metadata = serde_json::json!({ "name": "emails", "uid": "u", "generation": generation });
            if deleted {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            let spec = serde_json::json!({ "workers": { "total": 1 } });
            serde_json::from_value::<TaskQueue>(serde_json::json!({ "metadata": metadata, "spec": spec }))
                .unwrap()
        };
        let mut fingerprints = HashMap::new();
        let mut counted = |event| counts(&Ok(event), Some(without_status), &mut fingerprints);
        for _ in 0..2 {
            assert!(!counted(Event::Init) && !counted(Event::InitApply(queue(1, false))));
            assert!(counted(Event::InitDone));
            let applied = [(1, false), (1, false), (2, false), (2, true), (2, true)];
            let applied =
                applied.map(|(generation, deleted)| counted(Event::Apply(queue(generation, deleted))));
            // The list may be older than the first event, so that one counts.
            assert_eq!(applied, [true, false, true, true, false]);
        }
        assert!(counted(Event::Delete(queue(2, true))) && counted(Event::Apply(queue(2, true))));
    }

    #[test]
    fn a_refusal_is_reported_and_a_transient_error_is_not() {
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
