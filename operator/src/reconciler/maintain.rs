//! The maintenance that the operator does, for queues without instances.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rowlock_queue::MaintenancePass;

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
        let mut pass = MaintenancePass::default();
        if lives {
            // Instances may lack the rights to create and drop partitions.
            self.maintainer.maintain_partitions(&self.db, &mut pass).await;
        } else {
            // The reconciler sends no heartbeats, so it cannot know whether instances could send theirs.
            pass = self.maintainer.run_steps(&self.db, None, None).await;
        }
        if let Some(partitions) = pass.report.partitions {
            self.partitions = Some((Instant::now(), partitions));
        }
        for (step, done) in pass.steps {
            self.failing_maintenance.note(step, done);
        }
    }
}

/// The steps of maintenance that failed and have not succeeded since. Steps that work every second do not end
/// the failure of one that is tried once a minute.
#[derive(Debug, Default)]
pub(super) struct FailingMaintenance {
    steps: BTreeSet<&'static str>,
    logged_at: Option<Instant>,
}

impl FailingMaintenance {
    fn note(&mut self, step: &'static str, done: rowlock_queue::Result<()>) {
        let Err(error) = done else {
            if self.steps.remove(step) && self.steps.is_empty() {
                self.logged_at = None;
                tracing::info!("maintenance works again");
            }
            return;
        };
        self.steps.insert(step);
        if self.logged_at.is_none_or(|at| LOG_EVERY <= at.elapsed()) {
            self.logged_at = Some(Instant::now());
            tracing::warn!(%error, step, "maintenance failed; trying again");
        } else {
            tracing::debug!(%error, step, "maintenance failed; trying again");
        }
    }
}
