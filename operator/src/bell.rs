//! The bell of one database, which wakes queues asleep at zero. A hint only: the loop looks without it too, a little later.

use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{Connect, Error};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Pause before listening again after the connection broke.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Bell {
    notify: Arc<Notify>,
    listener: JoinHandle<()>,
}

impl Bell {
    /// Listens with a connection of its own, again and again; behind a connection pooler it never rings.
    #[must_use]
    pub fn start(connect: Connect) -> Self {
        let notify = Arc::new(Notify::new());
        let ring = Arc::clone(&notify);
        let listener = tokio::spawn(async move {
            loop {
                match rowlock_queue::listen(&connect).await {
                    Ok(mut bell) => {
                        while bell.wait().await.is_ok() {
                            ring.notify_one();
                        }
                    }
                    Err(Error::NoBell) => return,
                    Err(_) => (),
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        });
        Self { notify, listener }
    }

    /// Returns when it rings.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
