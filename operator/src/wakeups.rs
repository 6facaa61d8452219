//! Wake-ups: NOTIFYs of one database for queues that are scaled to zero. They are only hints: without them
//! the next poll finds the task, a little later.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rowlock_queue::{Connect, Db, Error, QueueId};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::jitter::jittered;

/// Back-off before listening again after the connection broke.
const RETRY_BACKOFF: Duration = Duration::from_secs(5);

/// How often the request to NOTIFY is renewed. A request is valid for a minute, and about every second
/// renewal writes to the database.
const REQUEST_EVERY: Duration = Duration::from_secs(20);

/// A listener; it stops on drop.
#[derive(Debug)]
pub(crate) struct Wakeups {
    state: Arc<State>,
    requested: BTreeSet<QueueId>,
    requested_at: Option<Instant>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Queues without an instance that listens.
    scaled_to_zero: Mutex<BTreeSet<QueueId>>,
    /// Whether the connection listens.
    listens: AtomicBool,
    notify: Notify,
}

impl Wakeups {
    /// Listens on a separate connection, and reconnects if it breaks. Behind a connection pooler no NOTIFY
    /// arrives.
    pub(crate) fn start(connect: Connect) -> Self {
        let state = Arc::new(State::default());
        let listener = tokio::spawn(listen(connect, Arc::clone(&state)));
        Self { state, requested: BTreeSet::new(), requested_at: None, listener }
    }

    /// Returns when a task has arrived for a queue that is scaled to zero.
    pub(crate) async fn received(&self) {
        self.state.notify.notified().await;
    }

    /// Sets which queues are scaled to zero, and requests NOTIFYs for them. Producers send them only for
    /// queues with a recent request.
    pub(crate) async fn request(&mut self, scaled_to_zero: BTreeSet<QueueId>, db: &Db) {
        self.state.scaled_to_zero().clone_from(&scaled_to_zero);
        let (listens, new) =
            (self.state.listens.load(Ordering::Relaxed), !scaled_to_zero.is_subset(&self.requested));
        let due = new || self.requested_at.is_none_or(|at| at.elapsed() >= REQUEST_EVERY);
        if scaled_to_zero.is_empty() || !listens || !due {
            return;
        }
        let queues: Vec<QueueId> = scaled_to_zero.iter().copied().collect();
        match rowlock_queue::request_notify(db, &queues).await {
            Ok(()) => (self.requested, self.requested_at) = (scaled_to_zero, Some(Instant::now())),
            Err(error) => tracing::debug!(%error, "wake-ups were not requested; trying again"),
        }
    }
}

impl State {
    fn scaled_to_zero(&self) -> std::sync::MutexGuard<'_, BTreeSet<QueueId>> {
        self.scaled_to_zero.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(connect: Connect, state: Arc<State>) {
    loop {
        match rowlock_queue::listen(&connect).await {
            Ok(mut listener) => {
                state.listens.store(true, Ordering::Relaxed);
                // Earlier NOTIFYs were missed, so the controller has to poll.
                state.notify.notify_one();
                while let Ok(queue) = listener.wait().await {
                    // Busy queues NOTIFY too, for their idle instances.
                    if state.scaled_to_zero().contains(&queue) {
                        state.notify.notify_one();
                    }
                }
                state.listens.store(false, Ordering::Relaxed);
            }
            Err(Error::NoNotify) => return,
            Err(_) => (),
        }
        tokio::time::sleep(jittered(RETRY_BACKOFF)).await;
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
