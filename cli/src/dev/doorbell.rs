//! The bell that wakes queues asleep at zero. A hint only: the loop looks without it too, a little later.

use rowlock_queue::{Connect, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Pause before listening again after the connection broke.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Doorbell {
    notify: Arc<Notify>,
    listener: JoinHandle<()>,
}

impl Doorbell {
    pub(super) fn start(connect: Connect) -> Self {
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

    pub(super) async fn rung(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
