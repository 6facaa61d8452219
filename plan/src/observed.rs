//! What is known about one queue at one moment.

use std::time::Duration;

use rowlock_crds::{ScalingMode, ScalingPreference, TaskQueueSpec};

use crate::Reason;

/// A pod with its image on the node is ready in about this long; taken until a start was measured.
const USUAL_POD_START: Duration = Duration::from_secs(3);

/// What the decision about one queue is made from.
#[expect(clippy::struct_excessive_bools, reason = "each is an observation of its own")]
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
    /// `spec.suspendScaling`: the pods stay as many as they are.
    pub suspend_scaling: bool,
    /// The operator cannot scale the pods, and the condition `Stalled` says why. They stay as many as they
    /// are.
    pub stalled: bool,
    /// What the database said; `None` when it said nothing, or too long ago.
    pub stats: Option<Backlog>,
    /// Pods there are, or that were asked for and are starting; without the terminating ones.
    pub pods: u32,
    /// Those of them that are ready. The others are starting.
    pub ready: u32,
    /// Those of them that the cluster has had no room for, for minutes: no node fits them, or a quota refuses
    /// them.
    pub unplaced: u32,
    /// The most pods that the cluster had room for lately; `None` if there was room for all.
    pub room: Option<u32>,
    /// Whether no handler of these pods starts. More pods would fail in the same way.
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
        /// What counts more: short waits or low cost.
        prefer: ScalingPreference,
    },
}

/// The statistics of a queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Backlog {
    /// Tasks that could start now.
    pub available: u64,
    /// Scheduled and retryable tasks that are due within seconds.
    pub due_soon: u64,
    /// Tasks that run.
    pub running: u64,
    /// The tasks enqueued in the last seconds.
    pub arrivals: Arrivals,
    /// The runs that ended in the last two minutes.
    pub runs: Runs,
    /// For how long the running tasks have run, on average. `None` while none runs.
    pub mean_running_seconds: Option<f64>,
    /// How long the oldest available task has waited.
    pub oldest_available_seconds: Option<f64>,
}

/// How many seconds back arrivals are counted with each poll. Longer than transactions usually take: a task
/// is seen when its transaction commits, and counts for the second in which it was enqueued.
pub const ARRIVAL_SECONDS: usize = 11;

/// The tasks that were enqueued in each of the last seconds and could start at once. Tasks with a delay do
/// not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrivals {
    /// The newest second, by the database's clock, since any moment that stays the same. It is not over yet.
    pub second: i64,
    /// How many tasks came in `second`, in the second before it, and so on.
    pub counts: [u64; ARRIVAL_SECONDS],
    /// How many entries of `counts` are known. The others are zero: more tasks arrived than are counted.
    pub known: usize,
}

/// The runs that ended lately. A run is one call of the handler.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Runs {
    /// Runs that completed their task.
    pub completed: u64,
    /// How long these took together, in seconds.
    pub seconds: f64,
    /// The sum of the squares of how long each took.
    pub seconds_squared: f64,
    /// Runs that failed or timed out.
    pub failed: u64,
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
                    prefer: auto.prefer,
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
            stalled: false,
            stats: None,
            pods: 0,
            ready: 0,
            unplaced: 0,
            room: None,
            not_starting: false,
            held_for: Duration::ZERO,
            unready_for: Duration::ZERO,
            waited_for: Duration::ZERO,
            pod_start: USUAL_POD_START,
        }
    }

    /// Why the pods stay as many as they are, if they do.
    pub(crate) fn keeps_pods_because(&self) -> Option<Reason> {
        if self.suspend_scaling { Some(Reason::Suspended) } else { self.stalled.then_some(Reason::Stalled) }
    }

    /// Pods that hold this many workers.
    pub(crate) fn pods_for(&self, workers: u32) -> u32 {
        workers.div_ceil(self.per_pod.max(1))
    }

    /// Workers that this many pods hold, of those there may be.
    pub(crate) fn workers_on(&self, pods: u32) -> u32 {
        pods.saturating_mul(self.per_pod.max(1)).min(self.total)
    }

    /// Workers that are kept without any task.
    pub(crate) fn least_workers(&self) -> u32 {
        match self.scaling {
            Scaling::Auto { min, .. } => min.min(self.total),
            Scaling::Fixed | Scaling::External { .. } => 0,
        }
    }

    /// How long the oldest available task has waited.
    pub(crate) fn oldest_wait(&self) -> Duration {
        let seconds = self.stats.and_then(|stats| stats.oldest_available_seconds).unwrap_or_default();
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

impl Backlog {
    /// Whether the queue has no task that needs a worker.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks() == 0
    }

    /// A worker for each task that runs.
    pub(crate) fn running_workers(&self) -> u32 {
        u32::try_from(self.running).unwrap_or(u32::MAX)
    }

    /// The tasks for which a worker is needed.
    pub(crate) fn tasks(&self) -> u32 {
        let tasks = self.available.saturating_add(self.due_soon).saturating_add(self.running);
        u32::try_from(tasks).unwrap_or(u32::MAX)
    }
}
