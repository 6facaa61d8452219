//! The instance's right to its leases, on a monotonic clock from before each beat was sent.
//!
//! Invariant 6 of the design: an instance that cannot renew stops its runs before its lease can be taken.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rowlock_queue::LEASE;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time left for stopping the runs before somebody else may start their tasks again.
const FENCE_MARGIN: Duration = Duration::from_secs(3);

/// How long the instance may work after sending a beat that was answered.
const RIGHT: Duration = LEASE.saturating_sub(FENCE_MARGIN);

/// Two beats in a row may be late by this much and still count as one chain.
const CHAIN_GAP: Duration = Duration::from_secs(3);

/// Trips once and for good.
#[derive(Debug)]
pub(crate) struct Fence {
    deadline: watch::Sender<Instant>,
    chain: Mutex<Chain>,
    tripped: CancellationToken,
    reason: Mutex<Option<&'static str>>,
}

/// Beats that were answered without a hole between them.
#[derive(Debug)]
struct Chain {
    since: Instant,
    last: Instant,
}

impl Fence {
    /// `joined_at` is from before the join was sent.
    pub(crate) fn new(joined_at: Instant) -> Self {
        Self {
            deadline: watch::Sender::new(joined_at + RIGHT),
            chain: Mutex::new(Chain { since: joined_at, last: joined_at }),
            tripped: CancellationToken::new(),
            reason: Mutex::new(None),
        }
    }

    /// A beat sent at `sent` was answered. An answer after our own deadline comes too late: the lease may
    /// have been taken in between, and the runs were told to stop.
    pub(crate) fn renew(&self, sent: Instant) {
        let now = Instant::now();
        if *self.deadline.borrow() <= now {
            self.trip("the beat was answered after the lease's deadline");
        }
        self.deadline.send_replace(sent + RIGHT);
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        if chain.last + CHAIN_GAP < sent {
            chain.since = sent;
        }
        chain.last = sent;
    }

    /// A beat failed: whoever cannot beat must not judge others that cannot.
    pub(crate) fn break_chain(&self) {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).since = Instant::now();
    }

    /// Since when our own beats were answered without a hole; `None`: the chain is broken now. Only what stood still for a whole
    /// lease of an unbroken chain may be rescued.
    pub(crate) fn chain_since(&self) -> Option<Instant> {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        (Instant::now() < chain.last + CHAIN_GAP).then_some(chain.since)
    }

    /// When the last answered beat was sent, for readiness.
    pub(crate) fn last_beat(&self) -> Instant {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    pub(crate) fn trip(&self, reason: &'static str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.tripped.cancel();
    }

    /// Whether the instance may work now, by its own look at the clock: one that was stopped for longer than its right goes on
    /// before any timer has told it so.
    pub(crate) fn holds(&self) -> bool {
        if *self.deadline.borrow() <= Instant::now() {
            self.trip("no beat was answered within the lease");
        }
        !self.tripped.is_cancelled()
    }

    pub(crate) fn tripped(&self) -> &CancellationToken {
        &self.tripped
    }

    pub(crate) fn reason(&self) -> Option<&'static str> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trips when no beat renews in time.
    pub(crate) async fn watch(&self) {
        loop {
            let deadline = *self.deadline.borrow();
            tokio::time::sleep_until(deadline).await;
            if *self.deadline.borrow() <= Instant::now() {
                self.trip("no beat was answered within the lease");
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
        assert_eq!(start.elapsed().as_secs(), RIGHT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_over_is_seen_before_any_timer_ran() {
        let fence = Fence::new(Instant::now());
        assert!(fence.holds());
        tokio::time::advance(RIGHT).await;
        assert!(!fence.holds(), "nobody watched");
        assert!(fence.tripped().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn counts_from_before_the_beat_was_sent() {
        let start = Instant::now();
        let fence = Fence::new(start);
        tokio::time::advance(Duration::from_secs(8)).await;
        fence.renew(start + Duration::from_secs(4));
        fence.watch().await;
        assert_eq!(start.elapsed().as_secs(), 4 + RIGHT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_after_the_deadline_fences_for_good() {
        let start = Instant::now();
        let fence = Fence::new(start);
        tokio::time::advance(LEASE).await;
        fence.renew(start + Duration::from_secs(11));
        assert!(fence.tripped().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hole_in_the_beats_starts_the_chain_anew() {
        let start = Instant::now();
        let fence = Fence::new(start);
        for _ in 0..LEASE.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            fence.renew(Instant::now());
        }
        assert_eq!(fence.chain_since(), Some(start));
        tokio::time::advance(CHAIN_GAP).await;
        assert_eq!(fence.chain_since(), None, "whoever cannot beat judges nobody");
        tokio::time::advance(Duration::from_secs(1)).await;
        fence.renew(Instant::now());
        assert_eq!(fence.chain_since(), Some(Instant::now()));
    }
}
