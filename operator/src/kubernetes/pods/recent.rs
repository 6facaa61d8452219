//! What was noted about pods lately, by namespace and by the pods' UIDs. No I/O.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most pods that are remembered per namespace, with a few hundred bytes each.
pub(super) const MOST_REMEMBERED: usize = 1000;

/// Notes about pods. Each is forgotten after a while.
#[derive(Debug)]
pub(super) struct RecentByNamespace<T> {
    all: Mutex<HashMap<String, OfNamespace<T>>>,
    kept_for: Duration,
}

/// By the UIDs of the pods.
type OfNamespace<T> = HashMap<String, Noted<T>>;

/// A note.
#[derive(Debug)]
pub(super) struct Noted<T> {
    pub(super) value: T,
    pub(super) at: Instant,
    /// How often it was passed on.
    pub(super) sent: usize,
}

impl<T: Clone> RecentByNamespace<T> {
    pub(super) fn new(kept_for: Duration) -> Self {
        Self { all: Mutex::default(), kept_for }
    }

    /// Notes a value, unless the pod has one that `is_same`. One that differs is replaced.
    pub(super) fn note(
        &self,
        namespace: String,
        uid: String,
        value: T,
        is_same: impl Fn(&T) -> bool,
        now: Instant,
    ) {
        let mut all = self.lock();
        all.retain(|_, pods| {
            pods.retain(|_, noted| now.duration_since(noted.at) < self.kept_for);
            !pods.is_empty()
        });
        let pods = all.entry(namespace).or_default();
        let is_known = pods.get(&uid).is_some_and(|noted| is_same(&noted.value));
        let has_room = pods.len() < MOST_REMEMBERED || pods.contains_key(&uid);
        if !is_known && has_room {
            pods.insert(uid, Noted { value, at: now, sent: 0 });
        }
    }

    /// At most `most` values of a namespace that are due, each with what `of` returns. Values for which it
    /// returns `None` are skipped.
    pub(super) fn pending<U>(
        &self,
        namespace: &str,
        is_due: impl Fn(&Noted<T>) -> bool,
        of: impl Fn(&T) -> Option<U>,
        most: usize,
    ) -> Vec<(T, U)> {
        let all = self.lock();
        let due = all.get(namespace).into_iter().flat_map(HashMap::values).filter(|noted| is_due(noted));
        due.filter_map(|noted| of(&noted.value).map(|of| (noted.value.clone(), of))).take(most).collect()
    }

    /// Changes the note about a pod, if there is one.
    pub(super) fn change(&self, namespace: &str, uid: &str, change: impl FnOnce(&mut Noted<T>)) {
        if let Some(noted) = self.lock().get_mut(namespace).and_then(|pods| pods.get_mut(uid)) {
            change(noted);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self, namespace: &str) -> usize {
        self.lock().get(namespace).map_or(0, HashMap::len)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, OfNamespace<T>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
