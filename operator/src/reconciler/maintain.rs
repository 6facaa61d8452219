//! The maintenance that the operator does, for queues without instances.

use std::time::{Duration, Instant};

use rowlock_queue::MaintenanceReport;

use super::Reconciler;
use crate::backend::Backend;
use crate::observe::ObservedQueues;

/// How often the reconciler runs maintenance while instances run or tasks wait.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// How often otherwise, so that an idle database gets fewer statements.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

/// How often a lasting failure of maintenance is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);

impl<B: Backend> Reconciler<B> {
    /// Runs maintenance. While an instance runs, that instance does most of it. Otherwise this moves due
    /// tasks, so that they wake a queue that is scaled to zero.
    pub(super) async fn maintain(&mut self, seen: &ObservedQueues) {
        if !self.is_poller() {
            return;
        }
        let lives = seen.values().any(|queue| queue.stats.instances > 0);
        // Waiting tasks may become due, or have no pod because of a limit.
        let waits = seen.values().map(|queue| &queue.stats).any(|stats| {
            [stats.available, stats.scheduled, stats.retryable, stats.due_soon].iter().any(|tasks| 0 < *tasks)
        });
        let every = if lives || waits { MAINTENANCE_INTERVAL } else { QUIET_INTERVAL };
        let early = self.maintained_at.is_some_and(|at| at.elapsed() < every);
        if early || self.problem.is_some() {
            return;
        }
        self.maintained_at = Some(Instant::now());
        let mut report = MaintenanceReport::default();
        let maintained = if lives {
            // Instances may lack the rights to create and drop partitions.
            self.maintainer.maintain_partitions(&self.db, &mut report).await
        } else {
            // The reconciler sends no heartbeats, so it cannot know whether instances could send theirs.
            self.maintainer.run_once(&self.db, None, None).await.map(|done| report = done)
        };
        if let Some(partitions) = report.partitions {
            self.partitions = Some((Instant::now(), partitions));
        }
        match maintained {
            Err(error) if self.failure_logged_at.is_none_or(|at| LOG_EVERY <= at.elapsed()) => {
                self.failure_logged_at = Some(Instant::now());
                tracing::warn!(%error, "maintenance failed; trying again");
            }
            Err(error) => tracing::debug!(%error, "maintenance failed; trying again"),
            Ok(()) if self.failure_logged_at.take().is_some() => tracing::info!("maintenance works again"),
            Ok(()) => (),
        }
    }
}
