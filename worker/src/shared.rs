//! What the tasks of one joined instance share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rowlock_crds::Policy;
use rowlock_queue::{Db, HorizonNote, InstanceId, Joined, QueueId, WatermarkObservation, Watermarks};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::fence::Fence;
use crate::gate::Gate;
use crate::http_handler::HttpHandler;
use crate::in_process::InProcess;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::outage::Outage;
use crate::starved::Starved;
use crate::task::Task;
use crate::workers::Workers;

/// Weight of the newest run in the mean service time that heartbeats carry: some twenty runs are remembered.
const SERVICE_WEIGHT: f64 = 0.1;

pub(crate) struct Shared {
    pub(crate) db: Db,
    pub(crate) instance: InstanceId,
    pub(crate) queue_id: QueueId,
    pub(crate) queue: Arc<str>,
    pub(crate) handler: Handler,
    pub(crate) workers: Arc<Workers>,
    pub(crate) fence: Fence,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leases: Leases,
    pub(crate) outage: Arc<Outage>,
    pub(crate) starved: Starved,
    /// Asks for a heartbeat now instead of at the next second.
    pub(crate) nudge: Notify,
    /// The instance takes leave: what the database says to others of its verbs meanwhile is no trouble.
    pub(crate) leaving: CancellationToken,
    /// Parent of every run: the fence, the end of the grace and an abort all stop them through it.
    pub(crate) abort_runs: CancellationToken,
    watermarks: Mutex<Watermarks>,
    noted: Mutex<Option<HorizonNote>>,
    policy: RwLock<Arc<InForce>>,
    service_millis: Mutex<Option<f64>>,
}

/// The policy that the next run follows.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) generation: i64,
    pub(crate) policy: Policy,
    pub(crate) max_attempts: u16,
}

/// Who does the tasks.
#[derive(Clone)]
pub(crate) enum Handler {
    Http(Box<HttpHandler>),
    InProcess(InProcess),
}

impl Handler {
    pub(crate) async fn call(&self, task: Task, policy: &Policy) -> Answer {
        match self {
            // Boxed: what hyper keeps would swell the runs of handlers that need none of it.
            Self::Http(handler) => Box::pin(handler.call(task, &policy.retry)).await,
            Self::InProcess(handlers) => handlers.call(task).await,
        }
    }
}

/// What the instance brought along before it joined.
pub(crate) struct Equipment {
    pub(crate) db: Db,
    pub(crate) queue: Arc<str>,
    pub(crate) handler: Handler,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) capacity: u32,
}

impl Shared {
    /// `asked` is from before the join was sent.
    pub(crate) fn new(with: Equipment, joined: Joined, asked: Instant) -> Self {
        Self {
            db: with.db,
            instance: joined.instance,
            queue_id: joined.queue,
            queue: with.queue,
            handler: with.handler,
            workers: Workers::new(with.capacity),
            fence: Fence::new(asked),
            gate: with.gate,
            metrics: with.metrics,
            leases: Leases::default(),
            outage: Arc::default(),
            starved: Starved::default(),
            nudge: Notify::new(),
            leaving: CancellationToken::new(),
            abort_runs: CancellationToken::new(),
            watermarks: Mutex::new(joined.watermarks),
            noted: Mutex::default(),
            policy: RwLock::new(Arc::new(InForce {
                generation: joined.policy_generation,
                policy: joined.policy,
                max_attempts: joined.max_attempts,
            })),
            service_millis: Mutex::new(None),
        }
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn advance_watermarks(&self, seen: &WatermarkObservation) {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).advance(seen);
    }

    /// What the last heartbeat noted, for the maintainer.
    pub(crate) fn note(&self, noted: HorizonNote) {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
    }

    pub(crate) fn take_note(&self) -> Option<HorizonNote> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn policy(&self) -> Arc<InForce> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_policy(&self, policy: InForce) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    pub(crate) fn served(&self, millis: f64) {
        let mut mean = self.service_millis.lock().unwrap_or_else(PoisonError::into_inner);
        *mean = Some(mean.map_or(millis, |mean| mean + SERVICE_WEIGHT * (millis - mean)));
    }

    pub(crate) fn service_millis(&self) -> Option<f64> {
        *self.service_millis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an error of the database once, where it is handled. A lost identity fences for good.
    pub(crate) fn database_failed(&self, during: &'static str, error: &rowlock_queue::Error) {
        if self.leaving.is_cancelled() {
            tracing::debug!(%error, during, "crossed with leaving");
            return;
        }
        self.metrics.error(error.metric_label());
        if matches!(error, rowlock_queue::Error::Gone) {
            self.fence.trip("the queue declared this instance gone");
        } else {
            self.outage.failed(during, error);
        }
    }

    /// The same verb was answered.
    pub(crate) fn database_answered(&self, during: &'static str) {
        self.outage.answered(during);
    }
}
