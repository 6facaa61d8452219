//! How long the instance may keep its leases, on a monotonic clock from before each heartbeat was sent, which counts the time that the machine is suspended.
//!
//! Invariant 6 of the design: an instance that cannot renew stops its attempts before its lease can be taken.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rowlock_queue::LEASE_DURATION;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time left for stopping the attempts before somebody else may start their tasks again.
const FENCE_MARGIN: Duration = Duration::from_secs(3);

/// How long the instance may work after sending a heartbeat that was answered.
const FENCE_AFTER: Duration = LEASE_DURATION.saturating_sub(FENCE_MARGIN);

/// How often the watch looks whether the machine was suspended: timers stand still while it is.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Two heartbeats in a row may be late by this much and still count as one streak.
const MAX_HEARTBEAT_GAP: Duration = Duration::from_secs(3);

/// How long the machine was suspended since it started. The clock of [`Instant`] stands still meanwhile, and the database's does not.
fn suspended() -> Duration {
    #[cfg(target_os = "linux")]
    {
        use nix::time::{ClockId, clock_gettime};
        let of = |clock| clock_gettime(clock).map(Duration::from);
        // In this order, so that the time between the two looks is none of it.
        if let (Ok(all), Ok(awake)) = (of(ClockId::CLOCK_BOOTTIME), of(ClockId::CLOCK_MONOTONIC)) {
            return all.saturating_sub(awake);
        }
    }
    Duration::ZERO
}

/// Until when the instance may work, and how long the machine had been suspended when that was set.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    until: Instant,
    suspended: Duration,
}

/// Trips once and for good.
#[derive(Debug)]
pub(crate) struct Fence {
    deadline: Mutex<Deadline>,
    suspended: fn() -> Duration,
    streak: Mutex<Streak>,
    tripped: CancellationToken,
    reason: Mutex<Option<&'static str>>,
}

/// Heartbeats that were answered without a gap between them.
#[derive(Debug)]
struct Streak {
    since: Instant,
    last: Instant,
}

impl Fence {
    /// `joined_at` is from before the join was sent.
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

    /// A heartbeat sent at `sent` was answered. An answer after our own deadline comes too late: the lease may
    /// have been taken in between, and the attempts were told to stop.
    pub(crate) fn renew(&self, sent: Instant) {
        if self.deadline() <= Instant::now() {
            self.trip("the heartbeat was answered after the lease's deadline");
        }
        // Suspended since the heartbeat before: it may have been while this one was on its way.
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

    /// A heartbeat failed: until they are unbroken again, the instance must not declare others dead.
    pub(crate) fn break_streak(&self) {
        self.streak.lock().unwrap_or_else(PoisonError::into_inner).since = Instant::now();
    }

    /// Since when our own heartbeats were answered without a gap; `None`: the streak is broken now. Only what stood still for a whole
    /// lease of an unbroken streak may be rescued.
    pub(crate) fn streak_since(&self) -> Option<Instant> {
        let streak = self.streak.lock().unwrap_or_else(PoisonError::into_inner);
        (Instant::now() < streak.last + MAX_HEARTBEAT_GAP).then_some(streak.since)
    }

    /// When the last answered heartbeat was sent, for readiness.
    pub(crate) fn last_heartbeat(&self) -> Instant {
        self.streak.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    pub(crate) fn trip(&self, reason: &'static str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.tripped.cancel();
    }

    /// Whether the instance may work now, by its own look at the clock: one that was stopped for longer than its right goes on
    /// before any timer has told it so.
    pub(crate) fn allows_work(&self) -> bool {
        if self.deadline() <= Instant::now() {
            self.trip("no heartbeat was answered within the lease");
        }
        !self.tripped.is_cancelled()
    }

    /// When the right is over, on the clock that stands still while the machine is suspended.
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

    /// Trips when no heartbeat renews in time.
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
    async fn trips_before_the_lease_is_over() {
        let start = Instant::now();
        let fence = Fence::new(start);
        fence.watch().await;
        assert!(fence.tripped().is_cancelled());
        assert_eq!(start.elapsed().as_secs(), FENCE_AFTER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_is_seen_before_any_timer_ran() {
        let fence = Fence::new(Instant::now());
        assert!(fence.allows_work());
        tokio::time::advance(FENCE_AFTER).await;
        assert!(!fence.allows_work(), "nobody watched");
        assert!(fence.tripped().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn counts_from_before_the_heartbeat_was_sent() {
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
        assert_eq!(fence.streak_since(), None, "after a failed heartbeat nobody is declared dead");
        tokio::time::advance(Duration::from_secs(1)).await;
        fence.renew(Instant::now());
        assert_eq!(fence.streak_since(), Some(Instant::now()));
    }

    /// By so much, for one test, the machine is suspended.
    static SUSPENDED_MILLIS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_machine_is_suspended_counts() {
        use std::sync::atomic::Ordering::Relaxed;
        let start = Instant::now();
        let fence = Fence::with(start, || Duration::from_millis(SUSPENDED_MILLIS.load(Relaxed)));
        SUSPENDED_MILLIS.store(5000, Relaxed);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(fence.allows_work());
        // That heartbeat may have been sent before the five seconds.
        fence.renew(Instant::now());
        fence.watch().await;
        assert_eq!(start.elapsed().as_secs(), 1 + FENCE_AFTER.as_secs() - 5);
        // Before, it went on working until its next heartbeat was answered, beside who had rescued its tasks.
        let fence = Fence::with(Instant::now(), || Duration::from_millis(SUSPENDED_MILLIS.load(Relaxed)));
        SUSPENDED_MILLIS.store(5000 + u64::try_from(LEASE_DURATION.as_millis()).unwrap(), Relaxed);
        assert!(!fence.allows_work());
    }
}
