//! What is known about one queue at one moment.

use std::time::Duration;

use rowlock_crds::{ScalingMode, TaskQueueSpec};

/// A pod with its image on the node is ready in about this long; taken until a start was measured.
const USUAL_POD_START: Duration = Duration::from_secs(3);

/// What the decision about one queue is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedQueue {
    /// Workers over all pods; the ceiling.
    pub total: u32,
    /// Workers of one pod.
    pub per_pod: u32,
    /// What the number of workers follows.
    pub scaling: Scaling,
    /// No task starts.
    pub paused: bool,
    /// The pods stay as many as they are.
    pub suspend_scaling: bool,
    /// What the database said; `None` when it said nothing, or too long ago.
    pub stats: Option<Backlog>,
    /// Pods there are, or that were asked for and are starting; without the terminating ones.
    pub pods: u32,
    /// Whether no handler of these pods gets to run: more of them would do no more.
    pub not_starting: bool,
    /// How long it has held pods without a break; zero without any.
    pub held_for: Duration,
    /// How long none of these pods has been ready; zero while one is, or without any.
    pub unready_for: Duration,
    /// How long it has asked for pods and has had none.
    pub waited_for: Duration,
    /// How long a pod takes from being wanted to its first claim.
    pub pod_start: Duration,
}

/// What the number of workers follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// Always `total`.
    Fixed,
    /// What somebody else says, up to `total`.
    External {
        /// Pods; `None` while nobody has said a number.
        replicas: Option<u32>,
    },
    /// Between `min` and `total`.
    Auto {
        /// Workers kept when there is nothing to do.
        min: u32,
        /// How long a task should wait at most before it starts.
        wait_target: Duration,
        /// How long fewer workers must suffice before some go.
        scale_down_after: Duration,
    },
}

/// The statistics of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Backlog {
    /// Tasks that could start now.
    pub available: u64,
    /// Scheduled and retryable tasks that could start within seconds.
    pub due_soon: u64,
    /// Tasks that run.
    pub running: u64,
    /// Tasks that came lately, per second.
    pub arrivals_per_second: f64,
    /// How long one task takes; `None` while none has finished.
    pub mean_service_seconds: Option<f64>,
    /// How long the oldest available task has waited.
    pub oldest_available_seconds: Option<f64>,
}

impl ObservedQueue {
    /// What a spec says; nothing observed yet.
    #[must_use]
    pub fn of(spec: &TaskQueueSpec) -> Self {
        let scaling = match spec.workers.scaling() {
            ScalingMode::Auto => {
                let auto = spec.workers.autoscaling.clone().unwrap_or_default();
                Scaling::Auto {
                    min: auto.min,
                    wait_target: auto.wait_target.into(),
                    scale_down_after: auto.scale_down_after.into(),
                }
            }
            ScalingMode::Fixed => Scaling::Fixed,
            ScalingMode::External => Scaling::External { replicas: spec.workers.replicas },
        };
        Self {
            total: spec.workers.total,
            per_pod: spec.workers.per_pod,
            scaling,
            paused: spec.paused,
            suspend_scaling: spec.suspend_scaling,
            stats: None,
            pods: 0,
            not_starting: false,
            held_for: Duration::ZERO,
            unready_for: Duration::ZERO,
            waited_for: Duration::ZERO,
            pod_start: USUAL_POD_START,
        }
    }

    /// Pods that hold so many workers.
    pub(crate) fn pods_for(&self, workers: u32) -> u32 {
        workers.div_ceil(self.per_pod.max(1))
    }

    /// Workers that so many pods hold, of those there may be.
    pub(crate) fn workers_on(&self, pods: u32) -> u32 {
        pods.saturating_mul(self.per_pod.max(1)).min(self.total)
    }
}

impl Backlog {
    /// Whether anything is there for which a worker must be kept.
    pub(crate) fn is_idle(&self) -> bool {
        self.available == 0 && self.due_soon == 0 && self.running == 0
    }
}
