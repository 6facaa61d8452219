//! What this replica has counted, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kubernetes::deployment::scale_in::Gone;
use crate::kubernetes::rollouts::NamespacedName;

/// Rescues of pods that had ended.
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

/// Canaries that have ended.
#[derive(Debug, Default)]
pub(crate) struct Canaries {
    passed: AtomicU64,
    failed: AtomicU64,
}

impl Canaries {
    pub(crate) fn note(&self, has_passed: bool) {
        let counter = if has_passed { &self.passed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have passed, and how many have failed.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Pods that went in scale-ins, by namespace and queue.
#[derive(Debug, Default)]
pub(crate) struct ScaleIns(Mutex<BTreeMap<NamespacedName, Gone>>);

impl ScaleIns {
    pub(crate) fn note(&self, namespace: &str, queue: &str, gone: Gone) {
        if gone != Gone::default() {
            let mut all = lock(&self.0);
            let total = all.entry((namespace.to_owned(), queue.to_owned())).or_default();
            (total.chosen, total.others) = (total.chosen + gone.chosen, total.others + gone.others);
        }
    }

    /// Forgets the queues that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&NamespacedName) -> bool) {
        lock(&self.0).retain(|name, _| is_there(name));
    }

    pub(crate) fn total(&self, namespace: &str, queue: &str) -> Gone {
        let key = (namespace.to_owned(), queue.to_owned());
        lock(&self.0).get(&key).copied().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before, a queue that was created again began with the pods of the former one.
    #[test]
    fn scale_ins_of_a_queue_that_is_gone_are_forgotten() {
        let scale_ins = ScaleIns::default();
        let gone = Gone { chosen: 2, others: 1 };
        for queue in ["mail", "mail", "letters"] {
            scale_ins.note("shop", queue, gone);
        }
        scale_ins.retain(|(namespace, queue)| namespace == "shop" && queue == "letters");
        assert_eq!(scale_ins.total("shop", "mail"), Gone::default());
        assert_eq!(scale_ins.total("shop", "letters"), gone);
    }
}
