//! What one pass observed and decided.

use crate::connection_limit::Limit;
use crate::shortage::Shortage;
use rowlock_crds::Manifest;
use rowlock_plan::Decision;
use rowlock_queue::{Error, PartitionStats, QueueStats};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a task should wait at most in a queue without autoscaling, which has no `waitTarget`: nobody said
/// how urgent its tasks are, so its metric tolerates what people notice.
const DEFAULT_WAIT_TARGET: Duration = Duration::from_mins(1);

/// All queues, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The queues, in the order of their names.
    pub queues: Vec<QueueView>,
    /// Why the database could not be read, if it could not.
    pub problem: Option<Arc<Error>>,
    /// When the database's server was started, by the last snapshot. In microseconds since 1970.
    pub started_at: Option<i64>,
    /// When the last snapshot was requested.
    pub snapshot_at: Option<Instant>,
    /// How long the database took to answer it.
    pub snapshot_took: Option<Duration>,
    /// The partitions of the database, and when they were read, if this controller does so.
    pub partitions: Option<(Instant, PartitionStats)>,
}

impl View {
    /// The queue of that name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueView> {
        let found = self.queues.binary_search_by(|queue| queue.name.as_str().cmp(name)).ok()?;
        self.queues.get(found)
    }
}

/// One queue.
#[derive(Debug, Clone)]
pub struct QueueView {
    /// The name of the queue.
    pub name: String,
    /// Why the database refused the declaration, if it did.
    pub refused: Option<Arc<Error>>,
    /// The owner that the database has on record.
    pub owner: Option<String>,
    /// Its statistics; `None` if the database could not be read.
    pub stats: Option<QueueStats>,
    /// Instances that run or are starting.
    pub instances: u32,
    /// How many of them are ready for tasks.
    pub ready: u32,
    /// Instances beside them that stop.
    pub draining: u32,
    /// The settings that metrics report.
    pub settings: QueueSettings,
    /// How many slots and pods it should have, and why.
    pub decision: Decision,
    /// The limit on connections to its database, if known.
    pub limit: Option<Limit>,
    /// Why connections allow fewer pods than it asks for, if they do.
    pub shortage: Option<Shortage>,
    /// The names of its instances, with the addresses of their metrics.
    pub metrics: Vec<(String, String)>,
}

/// What metrics say about a queue's configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueSettings {
    /// `autoscaling.waitTarget`, or a minute without autoscaling.
    pub wait_target: Duration,
    /// `workers.total`.
    pub total_workers: u32,
    /// `spec.paused`.
    pub paused: bool,
}

impl QueueSettings {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let autoscaling = manifest.spec.workers.autoscaling.as_ref();
        Self {
            wait_target: autoscaling.map_or(DEFAULT_WAIT_TARGET, |auto| auto.wait_target.into()),
            total_workers: manifest.spec.workers.total,
            paused: manifest.spec.paused,
        }
    }
}
