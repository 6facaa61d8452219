//! Watches an instance start: when it is ready for tasks for the first time, and how long that took.

use super::readiness::is_ready;
use rowlock_plan::PodStarts;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Between the first questions.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);

/// An instance that has started for long is asked less often: each twentieth of that time.
const SHARE_OF_ELAPSED: u32 = 20;

/// Between questions at most.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// The last starts of one queue's instances.
pub(super) type Starts = Arc<Mutex<PodStarts>>;

/// Asks an instance whether it is ready, until it is. Ends when it is dropped.
pub(super) struct StartWatch {
    was_ready: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl StartWatch {
    /// The instance starts now, and its worker will listen at this port.
    pub(super) fn begin(worker_port: u16, starts: Starts) -> Self {
        Self::of(move || is_ready(worker_port), starts)
    }

    fn of<F>(ask: impl Fn() -> F + Send + 'static, starts: Starts) -> Self
    where
        F: Future<Output = bool> + Send,
    {
        let was_ready = Arc::new(AtomicBool::new(false));
        let (began, ready) = (Instant::now(), Arc::clone(&was_ready));
        let task = tokio::spawn(async move {
            while !ask().await {
                sleep((began.elapsed() / SHARE_OF_ELAPSED).clamp(FIRST_INTERVAL, LONGEST_INTERVAL)).await;
            }
            starts.lock().unwrap_or_else(PoisonError::into_inner).note(began.elapsed());
            ready.store(true, Ordering::Relaxed);
        });
        Self { was_ready, task }
    }

    /// Whether it has been ready.
    pub(super) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }
}

impl Drop for StartWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance that is ready after this time, watched for five minutes.
    async fn watch(ready_after: Duration) -> (bool, Option<Duration>) {
        let (starts, began) = (Starts::default(), Instant::now());
        let ask = move || {
            let is_ready = began.elapsed() >= ready_after;
            async move { is_ready }
        };
        let watch = StartWatch::of(ask, Arc::clone(&starts));
        assert!(!watch.was_ready());
        sleep(Duration::from_mins(5)).await;
        let usual = starts.lock().unwrap().usual();
        (watch.was_ready(), usual)
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_is_measured_to_a_tenth_of_a_second_or_a_twentieth() {
        for millis in [700, 3000, 60_000] {
            let ready_after = Duration::from_millis(millis);
            let (was_ready, took) = watch(ready_after).await;
            let at_most = ready_after + FIRST_INTERVAL.max(ready_after / 19);
            let is_right = took.is_some_and(|took| (ready_after..=at_most).contains(&took));
            assert!(was_ready && is_right, "{millis} ms: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_never_gets_ready_has_not_started() {
        assert_eq!(watch(Duration::MAX).await, (false, None));
    }
}
