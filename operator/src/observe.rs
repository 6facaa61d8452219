//! All reads of a pass: one statement for all queues of a database.

use crate::shortage::Group;
use rowlock_plan::{ARRIVAL_SECONDS, Arrivals, Backlog, Runs};
use rowlock_queue::{
    ConnectionLimit, Db, Declared, Error, HORIZON_KINDS, HorizonHolder, LONGEST_OWNER, Overview, QueueStats,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the database may take to answer. After that the pass continues without a snapshot.
pub(crate) const OBSERVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait between two polls, however long they take. It limits how long a queue that is scaled to
/// zero waits for its first instance.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Limits on what is kept of an answer until the next poll, since a tenant's server may send anything: the
/// queues of the operator's `TaskQueues`, however many there are, and this many others, about a MiB, those of
/// its owners first; the longest name that Postgres allows; the longest owner that `declare_queue` allows. Of
/// the rest only the instances are counted.
const MOST_OTHERS: usize = 2000;
const LONGEST_NAME: usize = 63;

/// The most connection limits that are kept, those of the operator's own user first: each user may have one.
const MOST_LIMITS: usize = 2000;

/// The queues of a database, by their names.
pub(crate) type ObservedQueues = BTreeMap<String, Declared>;

/// A snapshot of a database.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) queues: ObservedQueues,
    /// The instances of queues that were not kept.
    pub(crate) unseen: Group,
    /// When the server was started, as in [`rowlock_queue::Identity`].
    pub(crate) started_at: i64,
    /// The limits on connections, of all users or of one.
    pub(crate) limits: Vec<ConnectionLimit>,
    /// Who holds back the xmin horizon: at most one holder of each kind.
    pub(crate) horizon: Vec<HorizonHolder>,
    /// When it was requested. It may lack later changes.
    pub(crate) requested_at: Instant,
    /// How long the database took to answer.
    pub(crate) took: Duration,
}

impl Snapshot {
    pub(crate) fn poll_interval(&self) -> Duration {
        poll_interval_after(self.took)
    }

    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self {
            queues: ObservedQueues::new(),
            unseen: Group::default(),
            started_at: 0,
            limits: Vec::new(),
            horizon: Vec::new(),
            requested_at: Instant::now(),
            took: Duration::ZERO,
        }
    }
}

/// The shortest wait after a poll that took that long. Counting a backlog of millions is slow, so polls take
/// at most a twentieth of the time.
pub(crate) fn poll_interval_after(took: Duration) -> Duration {
    (took * 19).min(MAX_POLL_INTERVAL)
}

/// How a queue of a database concerns this operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// A controller manages a queue of this name.
    Managed,
    /// Its owner is a `TaskQueue` whose controller has not begun yet.
    Ours,
    Others,
}

/// Reads all queues of a database.
pub(crate) async fn observe(db: &Db, whose: impl Fn(&Declared) -> Whose) -> Result<Snapshot, Error> {
    let requested_at = Instant::now();
    let answer = tokio::time::timeout(OBSERVE_TIMEOUT, rowlock_queue::overview(db)).await;
    let Overview { started_at, mut queues, mut limits, mut horizon } = answer.map_err(|_| timed_out())??;
    queues.retain(|queue| queue.stats.name.len() <= LONGEST_NAME && queue.owner.len() <= LONGEST_OWNER);
    let (queues, unseen) = keep(queues, whose);
    limits.retain(|limit| {
        limit.limit_of.len() <= LONGEST_NAME
            && limit.user.as_ref().is_none_or(|user| user.len() <= LONGEST_NAME)
    });
    limits.sort_by_key(|limit| limit.user.is_some() && limit.user.as_deref() != db.user());
    limits.truncate(MOST_LIMITS);
    // Frees the memory of the removed ones.
    limits.shrink_to_fit();
    horizon.retain(|holder| HORIZON_KINDS.contains(&holder.kind.as_str()));
    horizon.truncate(HORIZON_KINDS.len());
    horizon.shrink_to_fit();
    let took = requested_at.elapsed();
    Ok(Snapshot { queues, unseen, started_at, limits, horizon, requested_at, took })
}

/// The queues to keep, and the instances of the rest.
fn keep(queues: Vec<Declared>, whose: impl Fn(&Declared) -> Whose) -> (ObservedQueues, Group) {
    let (managed, mut others): (Vec<_>, Vec<_>) =
        queues.into_iter().partition(|queue| whose(queue) == Whose::Managed);
    let beyond = if others.len() > MOST_OTHERS {
        others.sort_by_cached_key(&whose);
        others.split_off(MOST_OTHERS)
    } else {
        Vec::new()
    };
    let mut unseen = Group::default();
    for queue in &beyond {
        unseen.add(queue.stats.instances);
    }
    // A server may send a name many times: it is kept once.
    let kept = managed.into_iter().chain(others).map(|queue| (queue.stats.name.clone(), queue));
    (kept.collect(), unseen)
}

pub(crate) fn timed_out() -> Error {
    Error::Unreachable(format!("no statistics within {} s", OBSERVE_TIMEOUT.as_secs()))
}

/// Converts statistics for the planner.
#[must_use]
pub fn backlog(stats: &QueueStats) -> Backlog {
    let ahead = claimed_ahead(stats);
    Backlog {
        available: count(stats.available).saturating_add(ahead),
        due_soon: count(stats.due_soon),
        running: count(stats.running).saturating_sub(ahead),
        arrivals: arrivals(stats),
        runs: Runs {
            completed: stats.runs.completed,
            seconds: stats.runs.seconds,
            seconds_squared: stats.runs.seconds_squared,
            failed: stats.runs.failed,
        },
        mean_running_seconds: stats.mean_running_seconds,
        oldest_available_seconds: stats.oldest_available_seconds,
    }
}

/// The tasks that instances have claimed beyond their slots. They wait for a slot, so they need no worker of
/// their own. Until an instance has reported slots, all that is claimed runs.
fn claimed_ahead(stats: &QueueStats) -> u64 {
    match count(stats.allocated.max(stats.busy)) {
        0 => 0,
        slots => count(stats.running).saturating_sub(slots),
    }
}

fn arrivals(stats: &QueueStats) -> Arrivals {
    let mut counts = [0; ARRIVAL_SECONDS];
    for (to, from) in counts.iter_mut().zip(stats.arrivals) {
        *to = from;
    }
    Arrivals { second: stats.arrivals_second, counts, known: stats.arrivals_known.min(ARRIVAL_SECONDS) }
}

/// Counters are sums of differences, and may be negative for a moment.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_poller::declared;

    /// Before, only 2,000 queues of a database were kept, so the others were declared again in each pass.
    #[test]
    fn each_managed_queue_is_kept_and_two_thousand_others() {
        let ours = (0..5000).map(|n| declared(&format!("ours-{n:04}"), "o", 1));
        let others = (0..3000).map(|n| declared(&format!("a-{n:04}"), "other", 1));
        let ours_later = (0..10).map(|n| declared(&format!("later-{n}"), "soon", 1));
        let queues = others.chain(ours).chain(ours_later).collect();
        let (kept, unseen) = keep(queues, |queue| match queue.owner.as_str() {
            "o" => Whose::Managed,
            "soon" => Whose::Ours,
            _ => Whose::Others,
        });
        assert_eq!((kept.len(), unseen), (7000, Group { queues: 1010, pods: 1010 }));
        assert!(kept.contains_key("ours-4999") && kept.contains_key("later-9"));
    }

    #[test]
    fn tasks_that_are_claimed_beyond_the_slots_wait() {
        let figures = |running, allocated, busy| {
            let stats = declared("mail", "o", 1).stats;
            let backlog = backlog(&QueueStats { running, allocated, busy, available: 100, ..stats });
            (backlog.available, backlog.running)
        };
        assert_eq!(figures(128, 64, 64), (164, 64));
        assert_eq!(figures(30, 64, 30), (100, 30));
        assert_eq!(figures(64, 32, 64), (100, 64), "a smaller allocation interrupts nothing");
        assert_eq!(figures(3, 0, 0), (100, 3), "no instance has reported yet");
    }

    #[test]
    fn a_name_that_a_server_sends_many_times_is_kept_once() {
        let same = (0..9000).map(|_| declared("mail", "o", 1)).collect();
        assert_eq!(keep(same, |_| Whose::Managed).0.len(), 1);
    }
}
