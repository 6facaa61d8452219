//! All reads of a step: one statement for all queues of a database.

use rowlock_plan::Backlog;
use rowlock_queue::{ConnectionLimit, Db, Declared, Error, Overview, QueueStats};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the database may take to answer before a step goes on without knowing.
pub(crate) const OBSERVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two polls, however long they take: a queue that is scaled to zero waits no longer for its first
/// instance.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// A server may say what it likes, for as long as it likes; this much of it is kept until the next poll,
/// about a MiB: of this many queues, ours first, with a name as long as Postgres' names are, and the longest
/// owner that `declare_queue` takes. Of others the instances are counted.
const MOST_QUEUES: usize = 2000;
const LONGEST_NAME: usize = 63;
const LONGEST_OWNER: usize = 200;

/// And this many limits, those that hold for our user first: there is one for each user who has a limit of
/// their own.
const MOST_LIMITS: usize = 2000;

/// What the database said of its queues, by their names.
pub(crate) type ObservedQueues = BTreeMap<String, Declared>;

/// A snapshot: what was seen of a database.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) queues: ObservedQueues,
    /// How many instances live of queues that are not among these.
    pub(crate) unseen: i64,
    /// When its server was started, as in [`rowlock_queue::Identity`].
    pub(crate) started_at: i64,
    /// What limits the connections of all users, or of one.
    pub(crate) limits: Vec<ConnectionLimit>,
    /// It need not know of what was changed from then on.
    pub(crate) requested_at: Instant,
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
            unseen: 0,
            started_at: 0,
            limits: Vec::new(),
            requested_at: Instant::now(),
            took: Duration::ZERO,
        }
    }
}

/// How long to wait, at least, after a poll that took that long: counting a backlog of millions takes its
/// time, and shall take no more than a twentieth of it.
pub(crate) fn poll_interval_after(took: Duration) -> Duration {
    (took * 19).min(MAX_POLL_INTERVAL)
}

/// Looks at all queues of a database, of which some are ours.
pub(crate) async fn observe(db: &Db, is_ours: impl Fn(&Declared) -> bool) -> Result<Snapshot, Error> {
    let requested_at = Instant::now();
    let answer = tokio::time::timeout(OBSERVE_TIMEOUT, rowlock_queue::overview(db)).await;
    let Overview { started_at, mut queues, mut limits } = answer.map_err(|_| timed_out())??;
    queues.retain(|queue| queue.stats.name.len() <= LONGEST_NAME && queue.owner.len() <= LONGEST_OWNER);
    let beyond = if queues.len() > MOST_QUEUES {
        queues.sort_by_cached_key(|queue| !is_ours(queue));
        queues.split_off(MOST_QUEUES)
    } else {
        Vec::new()
    };
    let unseen = beyond.iter().map(|queue| queue.stats.instances).fold(0, i64::saturating_add);
    let queues = queues.into_iter().map(|queue| (queue.stats.name.clone(), queue)).collect();
    limits.retain(|limit| {
        limit.limit_of.len() <= LONGEST_NAME
            && limit.user.as_ref().is_none_or(|user| user.len() <= LONGEST_NAME)
    });
    limits.sort_by_key(|limit| limit.user.is_some() && limit.user.as_deref() != db.user());
    limits.truncate(MOST_LIMITS);
    // The room that the rest took is for others now.
    limits.shrink_to_fit();
    Ok(Snapshot { queues, unseen, started_at, limits, requested_at, took: requested_at.elapsed() })
}

pub(crate) fn timed_out() -> Error {
    Error::Unreachable(format!("no statistics within {} s", OBSERVE_TIMEOUT.as_secs()))
}

/// The plan's words for what the database said.
pub(crate) fn backlog(stats: &QueueStats) -> Backlog {
    Backlog {
        available: count(stats.available),
        due_soon: count(stats.due_soon),
        running: count(stats.running),
        arrivals_per_second: stats.arrivals_per_second,
        mean_service_seconds: stats.mean_service_seconds,
        oldest_available_seconds: stats.oldest_available_seconds,
    }
}

/// Counters are differences and may be below zero for a moment.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
