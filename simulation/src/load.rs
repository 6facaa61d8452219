//! What is replayed: the tasks of one or more queues, and what happens to their handlers.

use rowlock_crds::{AutoscalingSpec, TaskQueueSpec};

use crate::time::{duration, micros};

/// A load. All times are seconds from its begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Its name in tables and pictures.
    pub name: String,
    /// How long it lasts. Tasks that have not started by then have waited until then.
    pub seconds: f64,
    /// How many pods all queues may have together, because of the connections of their database.
    pub budget: Option<u32>,
    /// How long pods take to start.
    pub pod_start: PodStart,
    /// The queues, in the order of their names.
    pub queues: Vec<QueueLoad>,
}

/// How long a pod takes from being asked for to its first claim: evenly spread between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PodStart {
    /// The shortest, in seconds.
    pub least: f64,
    /// The longest, in seconds.
    pub most: f64,
}

/// The load of one queue, with what its manifest says.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueLoad {
    /// The name of the queue.
    pub name: String,
    /// `workers.total`: the most workers (slots).
    pub total: u32,
    /// `workers.perPod`: the workers (slots) of each pod.
    pub per_pod: u32,
    /// `workers.autoscaling.min`.
    pub min: u32,
    /// `workers.autoscaling.waitTarget`, in seconds.
    pub wait_target: f64,
    /// The tasks, in the order in which they are enqueued.
    pub tasks: Vec<Task>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl QueueLoad {
    /// The spec of its manifest, with defaults for everything that is not here.
    pub(crate) fn spec(&self) -> TaskQueueSpec {
        let mut spec = TaskQueueSpec::with_workers(self.total);
        spec.workers.per_pod = self.per_pod.max(1);
        spec.workers.autoscaling = Some(AutoscalingSpec {
            min: self.min,
            wait_target: duration(micros(self.wait_target)).into(),
            ..AutoscalingSpec::default()
        });
        spec
    }
}

/// A task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task {
    /// When it is enqueued (committed).
    pub enqueued: f64,
    /// How long after that it may start.
    pub delay: f64,
    /// How long the handler takes for it.
    pub service: f64,
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// When it begins.
    pub from: f64,
    /// When it is over.
    pub until: f64,
    /// What it is.
    pub kind: FaultKind,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// Every run that begins fails after this many seconds; the task is tried again after the backoff.
    RunsFail {
        /// How long a run takes to fail: a hanging dependency fails by the timeout.
        after: f64,
    },
    /// The autoscaler gets no statistics, and no task is claimed.
    DatabaseGone,
    /// Pods that start do not become ready before it is over.
    PodsDoNotStart,
}
