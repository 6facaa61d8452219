//! NOTIFY of one database, which wakes queues asleep at zero. A hint only: the loop looks without it too, a little later.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rowlock_queue::{Connect, Db, Error, QueueId};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Pause before listening again after the connection broke.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How often producers are told to ring on: it holds for a minute, and is written about every other time.
const KEEP_EVERY: Duration = Duration::from_secs(20);

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Bell {
    heard: Arc<Heard>,
    kept: BTreeSet<QueueId>,
    kept_at: Option<Instant>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Queues without an instance that would hear it.
    asleep: Mutex<BTreeSet<QueueId>>,
    /// Whether anything would be heard.
    listens: AtomicBool,
    notify: Notify,
}

impl Bell {
    /// Listens with a connection of its own, again and again; behind a connection pooler it never rings.
    pub(crate) fn start(connect: Connect) -> Self {
        let heard = Arc::new(Heard::default());
        let listener = tokio::spawn(listen(connect, Arc::clone(&heard)));
        Self { heard, kept: BTreeSet::new(), kept_at: None, listener }
    }

    /// Returns when it rings for a queue that sleeps.
    pub(crate) async fn rung(&self) {
        self.heard.notify.notified().await;
    }

    /// Which queues sleep from now on. Has their producers ring, which they do only where somebody said so lately.
    pub(crate) async fn wait_for(&mut self, asleep: BTreeSet<QueueId>, db: &Db) {
        self.heard.asleep().clone_from(&asleep);
        let (listens, new) = (self.heard.listens.load(Ordering::Relaxed), !asleep.is_subset(&self.kept));
        let due = new || self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY);
        if asleep.is_empty() || !listens || !due {
            return;
        }
        let queues: Vec<QueueId> = asleep.iter().copied().collect();
        match rowlock_queue::request_notify(db, &queues).await {
            Ok(()) => (self.kept, self.kept_at) = (asleep, Some(Instant::now())),
            Err(error) => tracing::debug!(%error, "nobody was told to ring; trying again"),
        }
    }
}

impl Heard {
    fn asleep(&self) -> std::sync::MutexGuard<'_, BTreeSet<QueueId>> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(connect: Connect, heard: Arc<Heard>) {
    loop {
        match rowlock_queue::listen(&connect).await {
            Ok(mut bell) => {
                heard.listens.store(true, Ordering::Relaxed);
                // What was rung before was missed.
                heard.notify.notify_one();
                while let Ok(queue) = bell.wait().await {
                    // Busy queues ring too, for instances that sleep.
                    if heard.asleep().contains(&queue) {
                        heard.notify.notify_one();
                    }
                }
                heard.listens.store(false, Ordering::Relaxed);
            }
            Err(Error::NoNotify) => return,
            Err(_) => (),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
