//! Notifies the controllers that wait for changes of objects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Notified of each change: all, or those in one namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<Senders>>);

/// By namespace; `None`: for changes in all of them.
type Senders = HashMap<Option<String>, watch::Sender<()>>;

impl Changes {
    /// Returns a receiver that is notified of changes in this namespace, or in all namespaces (`None`).
    pub(crate) fn subscribe(&self, namespace: Option<&str>) -> watch::Receiver<()> {
        let mut senders = self.senders();
        // Of namespaces that had `TaskQueues` before.
        senders.retain(|_, sender| sender.receiver_count() > 0);
        senders.entry(namespace.map(str::to_owned)).or_default().subscribe()
    }

    pub(crate) fn notify(&self, namespace: Option<&str>) {
        let senders = self.senders();
        let Some(namespace) = namespace else {
            senders.values().for_each(|sender| sender.send_replace(()));
            return;
        };
        for of in [None, Some(namespace.to_owned())] {
            if let Some(sender) = senders.get(&of) {
                sender.send_replace(());
            }
        }
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One watch of all namespaces must not wake the controllers of all of them for each change.
    #[test]
    fn a_change_wakes_those_who_wait_for_its_namespace() {
        let changes = Changes::default();
        let waiting = [Some("a"), Some("b"), None].map(|namespace| changes.subscribe(namespace));
        let woken = || waiting.each_ref().map(|one| one.has_changed().unwrap());
        assert_eq!(woken(), [false; 3]);
        changes.notify(Some("a"));
        assert_eq!(woken(), [true, false, true]);
        changes.notify(None);
        assert_eq!(woken(), [true; 3]);
        drop(waiting);
        drop(changes.subscribe(None));
        assert_eq!(changes.senders().len(), 1);
    }
}
