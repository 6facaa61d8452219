//! What the operator counts, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kubernetes::deployment::scale_in::Gone;
use crate::kubernetes::rollouts::NamespacedName;

/// Rescues of pods that had ended, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Rescues {
    pods: AtomicU64,
    tasks: AtomicU64,
}

impl Rescues {
    /// One pod more, with its tasks.
    pub(crate) fn note(&self, tasks: u64) {
        self.pods.fetch_add(1, Ordering::Relaxed);
        self.tasks.fetch_add(tasks, Ordering::Relaxed);
    }

    /// The number of pods and of their tasks.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.pods.load(Ordering::Relaxed), self.tasks.load(Ordering::Relaxed))
    }
}

/// Pods that went in scale-ins, by namespace and queue, for metrics.
#[derive(Debug, Default)]
pub(crate) struct ScaleIns(Mutex<BTreeMap<NamespacedName, Gone>>);

impl ScaleIns {
    pub(crate) fn note(&self, namespace: &str, queue: &str, gone: Gone) {
        if gone != Gone::default() {
            let mut all = self.lock();
            let total = all.entry((namespace.to_owned(), queue.to_owned())).or_default();
            (total.chosen, total.others) = (total.chosen + gone.chosen, total.others + gone.others);
        }
    }

    pub(crate) fn total(&self, namespace: &str, queue: &str) -> Gone {
        let key = (namespace.to_owned(), queue.to_owned());
        self.lock().get(&key).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NamespacedName, Gone>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
