//! All reads of a step: one statement for all queues of a database.

use rowlock_plan::Backlog;
use rowlock_queue::{ConnectionLimit, Db, Declared, Error, Overview, QueueStats};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the database may take to answer before a step goes on without knowing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks, however long they take: a queue asleep waits no longer for its first instance.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A server may say what it likes, for as long as it likes; this much of it is kept until the next look. More than a database has of queues,
/// a name as long as Postgres' names are, and the longest owner that `declare_queue` takes.
const MOST_QUEUES: usize = 10_000;
const LONGEST_NAME: usize = 63;
const LONGEST_OWNER: usize = 200;

/// And more users with a limit of their own than are looked through each time.
const MOST_LIMITS: usize = 10_000;

/// What the database said of its queues, by their names.
pub(crate) type Seen = BTreeMap<String, Declared>;

/// What was seen of a database.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) queues: Seen,
    /// When its server was started, as in [`rowlock_queue::Identity`].
    pub(crate) started_at: i64,
    /// What limits the connections of all users, or of one.
    pub(crate) limits: Vec<ConnectionLimit>,
    /// It need not know of what was changed from then on.
    pub(crate) asked: Instant,
    pub(crate) took: Duration,
}

impl Look {
    pub(crate) fn rest(&self) -> Duration {
        rest_after(self.took)
    }

    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self {
            queues: Seen::new(),
            started_at: 0,
            limits: Vec::new(),
            asked: Instant::now(),
            took: Duration::ZERO,
        }
    }
}

/// How long to wait, at least, after a look that took so long: counting a backlog of millions takes its time, and shall take no more than
/// a twentieth of it.
pub(crate) fn rest_after(took: Duration) -> Duration {
    (took * 19).min(LONGEST_REST)
}

/// Looks at all queues of a database.
pub(crate) async fn observe(db: &Db) -> Result<Look, Error> {
    let asked = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, rowlock_queue::overview(db)).await;
    let Overview { started_at, queues, limits } = answer.map_err(|_| late())??;
    let sound =
        |queue: &Declared| queue.stats.name.len() <= LONGEST_NAME && queue.owner.len() <= LONGEST_OWNER;
    let queues = queues.into_iter().filter(sound).take(MOST_QUEUES);
    let queues = queues.map(|queue| (queue.stats.name.clone(), queue)).collect();
    let limits = limits.into_iter().take(MOST_LIMITS).collect();
    Ok(Look { queues, started_at, limits, asked, took: asked.elapsed() })
}

pub(crate) fn late() -> Error {
    Error::Unreachable(format!("no statistics within {} s", PATIENCE.as_secs()))
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
