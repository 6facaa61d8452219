//! Stops the instance's attempts before its leases can be taken over.
//!
//! The deadline is on a monotonic clock that includes the time while the machine is suspended. It counts from
//! before each heartbeat was sent, so it ends before the lease does in the database.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rowlock_queue::LEASE_DURATION;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time to stop the attempts before another instance may start their tasks again.
const FENCE_MARGIN: Duration = Duration::from_secs(3);

/// How long the instance may work after sending a heartbeat that was answered.
const FENCE_AFTER: Duration = LEASE_DURATION.saturating_sub(FENCE_MARGIN);

/// How often to check whether the machine was suspended. Timers stand still during a suspension.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Longest gap between two heartbeats of one streak.
const MAX_HEARTBEAT_GAP: Duration = Duration::from_secs(3);

/// How long the machine has been suspended since it started. The clock of [`Instant`] stands still during a
/// suspension; the database's clock does not.
fn suspended() -> Duration {
    #[cfg(target_os = "linux")]
    {
        use nix::time::{ClockId, clock_gettime};
        let of = |clock| clock_gettime(clock).map(Duration::from);
        // In this order, so that the time between the two calls does not count as suspended.
        if let (Ok(all), Ok(awake)) = (of(ClockId::CLOCK_BOOTTIME), of(ClockId::CLOCK_MONOTONIC)) {
            return all.saturating_sub(awake);
        }
    }
    Duration::ZERO
}

/// When the instance must stop working, and how long the machine had been suspended when this was set.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    until: Instant,
    suspended: Duration,
}

/// Trips once and stays tripped.
#[derive(Debug)]
pub(crate) struct Fence {
    deadline: Mutex<Deadline>,
    suspended: fn() -> Duration,
    streak: Mutex<Streak>,
    tripped: CancellationToken,
    reason: Mutex<Option<&'static str>>,
}

/// Answered heartbeats without a gap.
#[derive(Debug)]
struct Streak {
    since: Instant,
    last: Instant,
}

impl Fence {
    /// `joined_at` is the time before the join was sent.
    pub(crate) fn new(joined_at: Instant) -> Self {
        Self::with(joined_at, suspended)
    }

    fn with(joined_at: Instant, suspended: fn() -> Duration) -> Self {
        Self {
            deadline: Mutex::new(Deadline { until: joined_at + FENCE_AFTER, suspended: suspended() }),
            suspended,
            streak: Mutex::new(Streak { since: joined_at, last: joined_at }),
            tripped: CancellationToken::new(),
            reason: Mutex::new(None),
        }
    }

    /// A heartbeat sent at `sent` was answered. An answer after the deadline comes too late: the lease may
    /// have been taken over, and the attempts were stopped.
    pub(crate) fn renew(&self, sent: Instant) {
        if self.deadline() <= Instant::now() {
            self.trip("the heartbeat was answered after the lease's deadline");
        }
        // The machine was suspended since the previous heartbeat, perhaps while this one was in flight. So
        // that time counts.
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let suspended = (self.suspended)();
        let lost = suspended.saturating_sub(deadline.suspended);
        *deadline = Deadline { until: sent + FENCE_AFTER.saturating_sub(lost), suspended };
        drop(deadline);
        let mut streak = self.streak.lock().unwrap_or_else(PoisonError::into_inner);
        if streak.last + MAX_HEARTBEAT_GAP < sent {
            streak.since = sent;
        }
        streak.last = sent;
    }

    /// A heartbeat failed. The instance must not declare others dead until a new streak is long enough.
    pub(crate) fn break_streak(&self) {
        self.streak.lock().unwrap_or_else(PoisonError::into_inner).since = Instant::now();
    }

    /// When the present streak of answered heartbeats began; `None` if it is broken. The instance may rescue
    /// tasks only of an instance whose heartbeat stood still for a full lease within this streak.
    pub(crate) fn streak_since(&self) -> Option<Instant> {
        let streak = self.streak.lock().unwrap_or_else(PoisonError::into_inner);
        (Instant::now() < streak.last + MAX_HEARTBEAT_GAP).then_some(streak.since)
    }

    /// When the last answered heartbeat was sent.
    pub(crate) fn last_heartbeat(&self) -> Instant {
        self.streak.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    pub(crate) fn trip(&self, reason: &'static str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.tripped.cancel();
    }

    /// Whether the instance may work now. It reads the clock, because a process that was stopped until after
    /// its deadline continues before its timers fire.
    pub(crate) fn allows_work(&self) -> bool {
        if self.deadline() <= Instant::now() {
            self.trip("no heartbeat was answered within the lease");
        }
        !self.tripped.is_cancelled()
    }

    /// The deadline on the clock of [`Instant`], which stands still while the machine is suspended.
    fn deadline(&self) -> Instant {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = (self.suspended)().saturating_sub(deadline.suspended);
        deadline.until.checked_sub(lost).unwrap_or(deadline.until)
    }

    pub(crate) fn tripped(&self) -> &CancellationToken {
        &self.tripped
    }

    pub(crate) fn reason(&self) -> Option<&'static str> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trips when no heartbeat is answered in time.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::time::sleep_until(self.deadline().min(Instant::now() + CHECK_INTERVAL)).await;
            if self.deadline() <= Instant::now() {
                self.trip("no heartbeat was answered within the lease");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_fence_trips_before_the_lease_expires() {
        let start = Instant::now();
        let fence = Fence::new(start);
        fence.watch().await;
        assert!(fence.tripped().is_cancelled());
        assert_eq!(start.elapsed().as_secs(), FENCE_AFTER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_is_noticed_before_any_timer_fires() {
        let fence = Fence::new(Instant::now());
        assert!(fence.allows_work());
        tokio::time::advance(FENCE_AFTER).await;
        assert!(!fence.allows_work(), "without a watch");
        assert!(fence.tripped().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_from_before_the_heartbeat_was_sent() {
        let start = Instant::now();
        let fence = Fence::new(start);
        tokio::time::advance(Duration::from_secs(8)).await;
        fence.renew(start + Duration::from_secs(4));
        fence.watch().await;
        assert_eq!(start.elapsed().as_secs(), 4 + FENCE_AFTER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_after_the_deadline_fences_for_good() {
        let start = Instant::now();
        let fence = Fence::new(start);
        tokio::time::advance(LEASE_DURATION).await;
        fence.renew(start + Duration::from_secs(11));
        assert!(fence.tripped().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_between_heartbeats_starts_a_new_streak() {
        let start = Instant::now();
        let fence = Fence::new(start);
        for _ in 0..LEASE_DURATION.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            fence.renew(Instant::now());
        }
        assert_eq!(fence.streak_since(), Some(start));
        tokio::time::advance(MAX_HEARTBEAT_GAP).await;
        assert_eq!(fence.streak_since(), None, "after a gap no instance is declared dead");
        tokio::time::advance(Duration::from_secs(1)).await;
        fence.renew(Instant::now());
        assert_eq!(fence.streak_since(), Some(Instant::now()));
    }

    /// How long the machine was suspended, for one test.
    static SUSPENDED_MILLIS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_machine_is_suspended_counts() {
        use std::sync::atomic::Ordering::Relaxed;
        let start = Instant::now();
        let fence = Fence::with(start, || Duration::from_millis(SUSPENDED_MILLIS.load(Relaxed)));
        SUSPENDED_MILLIS.store(5000, Relaxed);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(fence.allows_work());
        // This heartbeat may have been sent before the machine was suspended for five seconds.
        fence.renew(Instant::now());
        fence.watch().await;
        assert_eq!(start.elapsed().as_secs(), 1 + FENCE_AFTER.as_secs() - 5);
        // Otherwise it would work until its next heartbeat is answered, while another instance has rescued
        // its tasks.
        let fence = Fence::with(Instant::now(), || Duration::from_millis(SUSPENDED_MILLIS.load(Relaxed)));
        SUSPENDED_MILLIS.store(5000 + u64::try_from(LEASE_DURATION.as_millis()).unwrap(), Relaxed);
        assert!(!fence.allows_work());
    }
}
