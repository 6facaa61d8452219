//! The last status of a `TaskQueue`, kept once: its conditions are a third of what an idle queue takes.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use rowlock_crds::{TaskQueue, TaskQueueStatus};

/// The status of a `TaskQueue` that has none.
static NONE: LazyLock<TaskQueueStatus> = LazyLock::new(TaskQueueStatus::default);

/// The last status that was written, or that another leader wrote.
pub(super) enum LastStatus {
    /// The watch may not show it yet.
    Written(Box<TaskQueueStatus>),
    /// The watch shows the same, which is in memory anyway.
    Watched(Arc<TaskQueue>),
}

impl LastStatus {
    /// The status is this one from now on.
    pub(super) fn replace(&mut self, written: TaskQueueStatus) -> Self {
        std::mem::replace(self, Self::Written(Box::new(written)))
    }

    /// Drops the copy, if the watch shows the same. Another status that somebody else wrote does not count.
    pub(super) fn share(&mut self, one: &Arc<TaskQueue>) {
        let is_shared = matches!(self, Self::Watched(watched) if Arc::ptr_eq(watched, one));
        if !is_shared && one.status.as_ref() == Some(&**self) {
            *self = Self::Watched(Arc::clone(one));
        }
    }
}

impl Deref for LastStatus {
    type Target = TaskQueueStatus;

    fn deref(&self) -> &TaskQueueStatus {
        match self {
            Self::Written(status) => status,
            Self::Watched(one) => one.status.as_ref().unwrap_or(&NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_queue(status: Option<TaskQueueStatus>) -> Arc<TaskQueue> {
        let spec = serde_json::json!({ "metadata": {}, "spec": { "workers": { "total": 1 } } });
        let mut one: TaskQueue = serde_json::from_value(spec).unwrap();
        one.status = status;
        Arc::new(one)
    }

    fn pods(pods: i32) -> TaskQueueStatus {
        TaskQueueStatus { pods: Some(pods), ..TaskQueueStatus::default() }
    }

    #[test]
    fn a_written_status_is_kept_until_the_watch_shows_it() {
        let mut last = LastStatus::Watched(task_queue(None));
        assert_eq!(*last, TaskQueueStatus::default());
        let before = last.replace(pods(1));
        assert_eq!((&*before, &*last), (&TaskQueueStatus::default(), &pods(1)));
        // The watch lags, or somebody else has written.
        for other in [None, Some(pods(7))] {
            last.share(&task_queue(other));
            assert!(matches!(last, LastStatus::Written(_)) && *last == pods(1));
        }
        for _ in 0..2 {
            // After each change of the object, the old one is not held.
            let shown = task_queue(Some(pods(1)));
            last.share(&shown);
            assert!(
                matches!(&last, LastStatus::Watched(one) if Arc::ptr_eq(one, &shown)) && *last == pods(1)
            );
        }
        last.share(&task_queue(Some(pods(7))));
        assert_eq!(*last, pods(1));
    }
}
