//! What one pass observed and decided.

use crate::connection_limit::Limit;
use crate::shortage::Shortage;
use rowlock_crds::Manifest;
use rowlock_plan::Decision;
use rowlock_queue::{Error, HORIZON_KINDS, PartitionStats, QueueStats};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// The polls of the database by this controller.
    pub polls: Polls,
    /// The age of the oldest transaction of each kind of holder of the xmin horizon, by the last snapshot.
    pub horizon: Option<[(&'static str, Duration); HORIZON_KINDS.len()]>,
}

/// Polls of a database since its controller began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Polls {
    /// How many of them were answered.
    pub answered: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How long all of them took.
    pub took: Duration,
}

impl Polls {
    pub(crate) fn note(&mut self, is_answered: bool, took: Duration) {
        *(if is_answered { &mut self.answered } else { &mut self.failed }) += 1;
        self.took = self.took.saturating_add(took);
    }
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
    /// Whether enqueue refuses tasks, because a limit of the backlog is reached.
    pub backlog_full: bool,
    /// Tasks that were enqueued since its controller began.
    pub enqueued: u64,
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
    /// Enqueue refuses tasks above this backlog.
    pub backlog_limit: u64,
    /// `spec.paused`.
    pub paused: bool,
}

impl QueueSettings {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            wait_target: manifest.spec.policy().wait_target.into(),
            total_workers: manifest.spec.workers.total,
            backlog_limit: manifest.spec.limits.backlog,
            paused: manifest.spec.paused,
        }
    }
}
