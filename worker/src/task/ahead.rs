//! Tasks claimed ahead: more than there are free slots, with their payloads, so that a slot starts its next
//! task without waiting for the database.
//!
//! They wait for a slot of this instance, and start in the order of their claims. Only running tasks count as
//! slots in use, so an allocation is never exceeded. Whatever keeps them from starting soon releases them.

use std::collections::VecDeque;
use std::time::Duration;

use rowlock_queue::{Claim, FetchedTask, TaskId, Token};
use tokio::time::Instant;

/// The longest mean run with which tasks are claimed ahead. A claim takes a few milliseconds, so slots with
/// longer tasks gain nothing, and other instances would wait for these tasks.
const LONGEST_MEAN_RUN: Duration = Duration::from_millis(20);

/// How long tasks claimed ahead should wait on average, if more of them wait than one for each slot. A
/// statement costs several times as much as a task in it, so larger claims cost less.
const MEAN_WAIT: Duration = Duration::from_millis(20);

/// The most tasks that wait for each slot. With tasks that take next to no time, more would bring nothing.
const MOST_PER_SLOT: u32 = 8;

/// The mean is over about this many runs, and nothing is claimed ahead before as many have ended.
const RUNS_OF_MEAN: u32 = 32;

/// The mean size is over about this many payloads.
const PAYLOADS_OF_MEAN: usize = 32;

/// How long a task may wait for a slot. After that the handler is slower than its mean says.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(200);

/// How long nothing is claimed ahead after a task has waited for too long, or payloads were too large: at
/// first briefly, because a machine may have stalled, and twice as long each time that it happens again soon.
const SHORTEST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(16);

/// The most memory for their payloads: that of a small instance (docs/limits.md allows payloads of 1 MiB).
const MAX_BYTES: usize = 4 << 20;

/// A claimed task with its payload.
#[derive(Debug)]
pub(crate) struct LeasedTask {
    pub(crate) token: Token,
    pub(crate) claim: Claim,
    pub(crate) body: FetchedTask,
}

/// The tasks that wait for a slot, and whether more may.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Oldest first, with the time since when each waits.
    waiting: VecDeque<(Instant, LeasedTask)>,
    bytes: usize,
    /// Cancelled while they waited, to be released.
    cancelled: Vec<LeasedTask>,
    /// All are to be released.
    revoked: bool,
    mean_run: MeanRun,
    mean_bytes: usize,
    /// Until when nothing is claimed ahead, and for how long that is.
    rest: Option<(Instant, Duration)>,
}

impl Ahead {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many tasks may be claimed for `slots` slots beyond those that wait.
    pub(crate) fn room(&self, slots: u32) -> u32 {
        let rests = self.rest.is_some_and(|(until, _)| Instant::now() < until);
        if rests || self.revoked || !self.mean_run.is_short() {
            return 0;
        }
        self.most(slots).saturating_sub(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX))
    }

    /// Whether to claim more, so that `slots` slots do not run out of tasks meanwhile. Waiting until half of
    /// them have started makes claims larger, and so fewer.
    pub(crate) fn is_low(&self, slots: u32) -> bool {
        self.waiting.len() <= self.most(slots) as usize / 2
    }

    /// The most tasks that may wait for `slots` slots: one for each, or more if they start soon and their
    /// payloads have room.
    fn most(&self, slots: u32) -> u32 {
        let soon = Duration::from_secs_f64(self.mean_run.seconds.max(0.0));
        let per_slot = MEAN_WAIT.as_nanos().checked_div(soon.as_nanos()).unwrap_or(u128::MAX);
        let per_slot = u32::try_from(per_slot).unwrap_or(u32::MAX).clamp(1, MOST_PER_SLOT);
        let in_memory = MAX_BYTES / 2 / self.mean_bytes.max(1);
        let in_memory = u32::try_from(in_memory).unwrap_or(u32::MAX).max(slots);
        slots.saturating_mul(per_slot).min(in_memory)
    }

    pub(crate) fn push(&mut self, task: LeasedTask) {
        self.bytes = self.bytes.saturating_add(task.body.payload.len());
        self.waiting.push_back((Instant::now(), task));
    }

    /// The next task to start. `None` also if all are to be released.
    pub(crate) fn pop(&mut self) -> Option<LeasedTask> {
        if self.revoked {
            return None;
        }
        let (_, task) = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(task.body.payload.len());
        Some(task)
    }

    /// A task with a payload of this size ran for this time.
    pub(crate) fn ran(&mut self, took: Duration, bytes: usize) {
        self.mean_run.add(took);
        let sum = self.mean_bytes.saturating_mul(PAYLOADS_OF_MEAN - 1).saturating_add(bytes);
        self.mean_bytes = sum / PAYLOADS_OF_MEAN;
    }

    /// Has all waiting tasks released.
    pub(crate) fn revoke(&mut self) {
        self.revoked = !self.waiting.is_empty();
    }

    /// Has one task released. False: it does not wait here.
    pub(crate) fn cancel(&mut self, task: TaskId) -> bool {
        let Some(place) = self.waiting.iter().position(|(_, waiting)| waiting.claim.id == task) else {
            return false;
        };
        if let Some((_, task)) = self.waiting.remove(place) {
            self.bytes = self.bytes.saturating_sub(task.body.payload.len());
            self.cancelled.push(task);
        }
        true
    }

    /// When the oldest task has waited for too long, or now if some are to be released.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.revoked || !self.cancelled.is_empty() {
            return Some(Instant::now());
        }
        self.waiting.front().map(|(since, _)| *since + MAX_WAIT)
    }

    /// Takes the tasks that are to be released. `may_start`: whether others may start when a slot is free.
    pub(crate) fn take_back(&mut self, may_start: bool) -> Vec<LeasedTask> {
        let now = Instant::now();
        let is_late = self.waiting.front().is_some_and(|(since, _)| *since + MAX_WAIT <= now);
        let all = !may_start || self.revoked;
        if !all && (is_late || MAX_BYTES < self.bytes) {
            let again = self.rest.filter(|(until, length)| now < *until + 4 * *length);
            let length = again.map_or(SHORTEST_REST, |(_, length)| LONGEST_REST.min(2 * length));
            self.rest = Some((now + length, length));
        }
        let mut back = std::mem::take(&mut self.cancelled);
        if all || is_late {
            back.extend(self.waiting.drain(..).map(|(_, task)| task));
            (self.bytes, self.revoked) = (0, false);
        }
        while MAX_BYTES < self.bytes
            && let Some((_, task)) = self.waiting.pop_back()
        {
            self.bytes = self.bytes.saturating_sub(task.body.payload.len());
            back.push(task);
        }
        back
    }
}

/// The mean of the last runs, in which older ones weigh less and less.
#[derive(Debug, Default)]
struct MeanRun {
    runs: u32,
    seconds: f64,
}

impl MeanRun {
    fn add(&mut self, took: Duration) {
        self.runs = self.runs.saturating_add(1).min(RUNS_OF_MEAN);
        self.seconds += (took.as_secs_f64() - self.seconds) / f64::from(self.runs);
    }

    fn is_short(&self) -> bool {
        RUNS_OF_MEAN <= self.runs && self.seconds <= LONGEST_MEAN_RUN.as_secs_f64()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    pub(crate) fn leased(id: i64, payload: &str) -> LeasedTask {
        let claim = Claim { id: TaskId(id), attempt: 0, priority: 2, available_since: None };
        let body = FetchedTask {
            id: TaskId(id),
            kind: "send".into(),
            payload: payload.into(),
            max_attempts: None,
            trace: None,
            enqueued_at_unix_ms: 0,
        };
        LeasedTask { token: Token(1), claim, body }
    }

    /// After runs of 20 milliseconds, with which one task for each slot waits.
    fn after_short_runs() -> Ahead {
        let mut ahead = Ahead::default();
        for _ in 0..RUNS_OF_MEAN {
            ahead.ran(20 * MS, 2);
        }
        ahead
    }

    fn ids(tasks: &[LeasedTask]) -> Vec<i64> {
        tasks.iter().map(|task| task.claim.id.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_claimed_ahead_unless_tasks_are_short() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.room(10), 0, "no run is known");
        for _ in 1..RUNS_OF_MEAN {
            ahead.ran(20 * MS, 2);
        }
        assert_eq!(ahead.room(10), 0, "too few runs are known");
        ahead.ran(20 * MS, 2);
        assert_eq!(ahead.room(10), 10);
        ahead.ran(Duration::from_secs(10), 2);
        assert_eq!(ahead.room(10), 0, "a long task is among the last ones");
        for _ in 0..10 * RUNS_OF_MEAN {
            ahead.ran(15 * MS, 2);
        }
        assert_eq!(ahead.room(10), 10, "they have been short for long enough");
    }

    #[tokio::test(start_paused = true)]
    async fn more_tasks_wait_for_each_slot_the_shorter_they_are() {
        for (took, most) in [(0, 80), (1, 80), (4, 50), (10, 20), (11, 10), (20, 10), (21, 0)] {
            let mut ahead = Ahead::default();
            for _ in 0..RUNS_OF_MEAN {
                ahead.ran(took * MS, 2);
            }
            assert_eq!(ahead.room(10), most, "{took} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_tasks_wait_if_their_payloads_are_large() {
        let mut ahead = Ahead::default();
        for _ in 0..RUNS_OF_MEAN {
            ahead.ran(MS, 100_000);
        }
        assert!((20..40).contains(&ahead.room(10)), "{}", ahead.room(10));
        assert_eq!(ahead.room(100), 100, "one for each slot may always be claimed");
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_one_task_for_each_slot_waits() {
        let mut ahead = after_short_runs();
        for id in 1..=10 {
            assert_eq!(ahead.is_low(10), id <= 6, "{id}");
            ahead.push(leased(id, "{}"));
        }
        assert_eq!((ahead.room(10), ahead.room(4)), (0, 0));
        assert_eq!(ahead.pop().unwrap().claim.id, TaskId(1), "the oldest one starts first");
        assert_eq!(ahead.room(10), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_too_long_is_released_and_no_more_are_claimed_for_a_while() {
        let mut ahead = after_short_runs();
        ahead.push(leased(1, "{}"));
        advance(MAX_WAIT / 2).await;
        ahead.push(leased(2, "{}"));
        assert_eq!(ahead.take_back(true).len(), 0);
        assert_eq!(ahead.due(), Some(Instant::now() + MAX_WAIT / 2));
        advance(MAX_WAIT / 2).await;
        assert_eq!(ids(&ahead.take_back(true)), [1, 2], "the second would wait as well");
        assert_eq!((ahead.room(10), ahead.due()), (0, None));
        advance(SHORTEST_REST).await;
        assert_eq!(ahead.room(10), 10);
        ahead.push(leased(3, "{}"));
        advance(MAX_WAIT).await;
        assert_eq!(ids(&ahead.take_back(true)), [3]);
        advance(SHORTEST_REST).await;
        assert_eq!(ahead.room(10), 0, "it happened again soon");
        advance(SHORTEST_REST).await;
        assert_eq!(ahead.room(10), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_may_not_start_are_released_at_once() {
        let mut ahead = after_short_runs();
        ahead.push(leased(1, "{}"));
        assert_eq!(ids(&ahead.take_back(false)), [1]);
        assert_eq!(ahead.room(10), 10, "the handler is as fast as before");
        ahead.push(leased(2, "{}"));
        ahead.revoke();
        assert!(ahead.pop().is_none());
        assert_eq!((ahead.room(10), ahead.due()), (0, Some(Instant::now())));
        assert_eq!(ids(&ahead.take_back(true)), [2]);
        ahead.revoke();
        assert_eq!(ahead.room(10), 10, "there was nothing to release");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_task_does_not_start() {
        let mut ahead = after_short_runs();
        ahead.push(leased(1, "{}"));
        ahead.push(leased(2, "{}"));
        assert!(ahead.cancel(TaskId(1)) && !ahead.cancel(TaskId(3)));
        assert_eq!(ahead.due(), Some(Instant::now()));
        assert_eq!(ids(&ahead.take_back(true)), [1]);
        assert_eq!(ahead.pop().unwrap().claim.id, TaskId(2));
    }

    #[tokio::test(start_paused = true)]
    async fn payloads_that_wait_take_a_bounded_memory() {
        let mut ahead = after_short_runs();
        let large = "x".repeat(MAX_BYTES / 4);
        for id in 1..=6 {
            ahead.push(leased(id, &large));
        }
        assert_eq!(ids(&ahead.take_back(true)), [6, 5], "the newest go back");
        assert_eq!(ahead.room(10), 0);
        assert_eq!(ahead.pop().unwrap().claim.id, TaskId(1));
        assert_eq!(ahead.take_back(true).len(), 0);
    }
}
