//! Wake-ups: each NOTIFY of one database for a queue that is scaled to zero. A hint only: the controller
//! polls without it too, a little later.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rowlock_queue::{Connect, Db, Error, QueueId};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Pause before listening again after the connection broke.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How often producers are asked again to NOTIFY: it holds for a minute, and is written about every other
/// time.
const REQUEST_EVERY: Duration = Duration::from_secs(20);

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Wakeups {
    state: Arc<State>,
    requested: BTreeSet<QueueId>,
    requested_at: Option<Instant>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Queues without an instance that would listen.
    scaled_to_zero: Mutex<BTreeSet<QueueId>>,
    /// Whether the connection listens.
    listens: AtomicBool,
    notify: Notify,
}

impl Wakeups {
    /// Listens with a connection of its own, again and again; behind a connection pooler nothing ever
    /// arrives.
    pub(crate) fn start(connect: Connect) -> Self {
        let state = Arc::new(State::default());
        let listener = tokio::spawn(listen(connect, Arc::clone(&state)));
        Self { state, requested: BTreeSet::new(), requested_at: None, listener }
    }

    /// Returns when a task came for a queue that is scaled to zero.
    pub(crate) async fn received(&self) {
        self.state.notify.notified().await;
    }

    /// Which queues are scaled to zero from now on. Asks their producers to NOTIFY, which they do only where
    /// somebody asked lately.
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
                // What came before was missed.
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
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
