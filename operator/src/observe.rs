//! All reads of a step: one statement for all queues of a database.

use rowlock_plan::Backlog;
use rowlock_queue::{Connections, Db, Declared, Error, QueueStats};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the database may take to answer before a step goes on without knowing.
const PATIENCE: Duration = Duration::from_secs(10);

/// By the names of the queues; and what limits the connections.
pub(crate) async fn observe(db: &Db) -> Result<(BTreeMap<String, Declared>, Option<Connections>), Error> {
    let answer = tokio::time::timeout(PATIENCE, rowlock_queue::overview(db)).await;
    let late = || Error::Unreachable(format!("no statistics within {} s", PATIENCE.as_secs()));
    let seen = answer.map_err(|_| late())??;
    let queues = seen.queues.into_iter().map(|queue| (queue.stats.name.clone(), queue));
    Ok((queues.collect(), seen.connections))
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
