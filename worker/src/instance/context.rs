//! What all parts of a joined instance share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rowlock_crds::Policy;
use rowlock_queue::{Db, HorizonNote, InstanceId, Joined, QueueId, WatermarkObservation, Watermarks};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;
use crate::handler::end_watch::EndWatch;
use crate::handler::readiness_probe::ReadinessProbe;
use crate::instance::allocation_stall::AllocationStall;
use crate::instance::fence::Fence;
use crate::metrics::Metrics;
use crate::task::leases::Leases;
use crate::task::run_window::RunWindow;
use crate::task::slots::Slots;
use crate::task::suspects::SuspectTurn;
use crate::task::trial::Trial;
use crate::throttled_log::{LineLimit, OutageLog};
use crate::traces::Traces;

pub(crate) struct Context {
    pub(crate) db: Db,
    pub(crate) instance: InstanceId,
    pub(crate) queue_id: QueueId,
    pub(crate) queue: Arc<str>,
    pub(crate) handler: Handler,
    pub(crate) slots: Arc<Slots>,
    pub(crate) fence: Fence,
    pub(crate) readiness: Arc<ReadinessProbe>,
    pub(crate) end_watch: EndWatch,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Traces,
    pub(crate) leases: Leases,
    pub(crate) runs: Arc<RunWindow>,
    pub(crate) suspects: SuspectTurn,
    pub(crate) trial: Trial,
    pub(crate) outage: Arc<OutageLog>,
    /// Log lines about failed attempts.
    pub(crate) failure_lines: LineLimit,
    pub(crate) allocation_stall: AllocationStall,
    /// Asks for a heartbeat now instead of in the next second.
    pub(crate) heartbeat_now: Notify,
    /// The instance is leaving; errors of other statements are expected meanwhile.
    pub(crate) leaving: CancellationToken,
    /// Parent token of every attempt: a fence, the end of the drain grace and an abort cancel it.
    pub(crate) abort_attempts: CancellationToken,
    watermarks: Mutex<Watermarks>,
    noted: Mutex<Option<HorizonNote>>,
    policy: RwLock<Arc<ActivePolicy>>,
}

/// The policy for the next attempts.
#[derive(Debug)]
pub(crate) struct ActivePolicy {
    pub(crate) generation: i64,
    pub(crate) policy: Policy,
    pub(crate) max_attempts: u16,
}

/// What exists before the instance joins.
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) queue: Arc<str>,
    pub(crate) handler: Handler,
    pub(crate) readiness: Arc<ReadinessProbe>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Traces,
    pub(crate) capacity: u32,
}

impl Context {
    /// `sent` is the time before the join was sent.
    pub(crate) fn new(with: Dependencies, joined: Joined, sent: Instant) -> Self {
        Self {
            db: with.db,
            instance: joined.instance,
            queue_id: joined.queue,
            queue: with.queue,
            end_watch: EndWatch::new(with.handler.address(), Arc::clone(&with.metrics)),
            handler: with.handler,
            slots: Slots::new(with.capacity),
            fence: Fence::new(sent),
            readiness: with.readiness,
            metrics: with.metrics,
            traces: with.traces,
            leases: Leases::default(),
            runs: Arc::new(RunWindow::new()),
            suspects: SuspectTurn::default(),
            trial: Trial::default(),
            outage: Arc::default(),
            failure_lines: LineLimit::default(),
            allocation_stall: AllocationStall::default(),
            heartbeat_now: Notify::new(),
            leaving: CancellationToken::new(),
            abort_attempts: CancellationToken::new(),
            watermarks: Mutex::new(joined.watermarks),
            noted: Mutex::default(),
            policy: RwLock::new(Arc::new(ActivePolicy {
                generation: joined.policy_generation,
                policy: joined.policy,
                max_attempts: joined.max_attempts,
            })),
        }
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn advance_watermarks(&self, seen: &WatermarkObservation) {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).advance(seen);
    }

    /// Keeps the note of the last heartbeat for maintenance.
    pub(crate) fn set_noted(&self, noted: HorizonNote) {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
    }

    pub(crate) fn take_noted(&self) -> Option<HorizonNote> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn policy(&self) -> Arc<ActivePolicy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_policy(&self, policy: ActivePolicy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    /// Whether tasks that were claimed ahead may start: not while the handler cannot be reached, a suspect
    /// waits for this instance to be free, all runs have failed, or heartbeats fail, so that the lease may be
    /// lost.
    pub(crate) fn may_start_ahead(&self) -> bool {
        let is_alive = !self.fence.tripped().is_cancelled() && self.fence.streak_since().is_some();
        let works = self.readiness.is_ready() && !self.trial.is_limited();
        is_alive && works && !self.suspects.is_due()
    }

    /// Counts and logs a database error. If the instance was declared gone, fences it for good.
    pub(crate) fn database_failed(&self, operation: &'static str, error: &rowlock_queue::Error) {
        if self.leaving.is_cancelled() {
            tracing::debug!(%error, operation, "failed while the instance was leaving");
            return;
        }
        self.metrics.error(error.metric_label());
        if matches!(error, rowlock_queue::Error::Gone) {
            self.fence.trip("the queue declared this instance gone");
        } else {
            self.outage.failed(operation, error);
        }
    }

    /// The operation succeeded.
    pub(crate) fn database_answered(&self, operation: &'static str) {
        self.outage.answered(operation);
    }
}
