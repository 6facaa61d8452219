//! A decision, with its reason.

use std::fmt;

use crate::{Inputs, Memory};

/// How many workers and pods a queue should have.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Workers over all pods.
    pub workers_desired: u32,
    /// Pods that hold them.
    pub pods_desired: u32,
    /// Why this number.
    pub reason: Reason,
    /// The workers that the tasks need, limited only by `total` and `min`; with external scaling, those that
    /// are asked for, without limits. `None` where that is not computed.
    pub demand: Option<u32>,
    /// The inputs of the demand.
    pub inputs: Option<Inputs>,
    /// Passed to the next decision.
    pub memory: Memory,
}

/// Why a queue has its number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Tasks wait.
    Backlog,
    /// Tasks keep coming.
    Rate,
    /// Running tasks are not interrupted: one worker for each.
    Running,
    /// Autoscaling is off.
    Fixed,
    /// `workers.replicas` sets the number of pods.
    External,
    /// No task waits, comes or runs, so there is no pod.
    Idle,
    /// Fewer would be enough, but `autoscaling.min` keeps these.
    MinWorkers,
    /// More are needed, but `workers.total` is reached.
    Total,
    /// More are needed, but the database has no connections left.
    Connections,
    /// More are needed, but no handler starts: there is one pod.
    NotStarting,
    /// More are needed, but nearly all runs fail: none are added.
    Failing,
    /// Fewer are enough, but not for all of `scaleDownAfter` yet.
    Stabilization,
    /// No task may start.
    Paused,
    /// `spec.suspendScaling` is set: the number stays.
    Suspended,
    /// The operator cannot scale, as the condition `Stalled` says: the number stays.
    Stalled,
    /// The backlog is not known: the number stays.
    Unknown,
}

impl Reason {
    /// The name of the reason in status, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "Backlog",
            Self::Rate => "Rate",
            Self::Running => "Running",
            Self::Fixed => "Fixed",
            Self::External => "External",
            Self::Idle => "Idle",
            Self::MinWorkers => "MinWorkers",
            Self::Total => "Total",
            Self::Connections => "Connections",
            Self::NotStarting => "NotStarting",
            Self::Failing => "Failing",
            Self::Stabilization => "Stabilization",
            Self::Paused => "Paused",
            Self::Suspended => "Suspended",
            Self::Stalled => "Stalled",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether the pods stay as many as they are, whatever the tasks need.
    #[must_use]
    pub const fn keeps_pods(self) -> bool {
        matches!(self, Self::Suspended | Self::Stalled)
    }

    /// Whether a limit keeps the number below the demand.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::Total | Self::Connections | Self::NotStarting | Self::Failing)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line for logs and people.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers_desired, pods_desired, reason, .. } = self;
        write!(f, "{workers_desired} slots on {pods_desired} pods: {reason}")?;
        match (&self.demand, &self.inputs) {
            (Some(demand), Some(inputs)) => write!(f, " (demand {demand}: {inputs})"),
            _ => Ok(()),
        }
    }
}
