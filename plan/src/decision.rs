//! What was decided, and why.

use std::fmt;

use crate::{Inputs, Memory};

/// How many workers and pods a queue shall have.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Workers over all pods.
    pub workers_desired: u32,
    /// Pods that hold them.
    pub pods_desired: u32,
    /// What settled the number.
    pub reason: Reason,
    /// What the tasks ask for, before anything but `total` and `min` limits it, or what somebody else asks
    /// for, before anything does; `None` where that was not asked.
    pub demand: Option<u32>,
    /// What the demand was computed from.
    pub inputs: Option<Inputs>,
    /// To be handed to the next decision.
    pub memory: Memory,
}

/// What settled the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Tasks wait.
    Backlog,
    /// Tasks keep coming.
    Rate,
    /// Nobody is interrupted: as many as run.
    Running,
    /// There is no autoscaling.
    Fixed,
    /// Somebody else says how many pods there are.
    External,
    /// Less would do, but `autoscaling.min` says so.
    MinWorkers,
    /// More would help, but `workers.total` says no.
    Total,
    /// More would help, but the database has no connections for it.
    Connections,
    /// More would help, but not while no handler gets to run: one pod is tried.
    NotStarting,
    /// Less would do, but not yet for long enough.
    Stabilization,
    /// No task may start.
    Paused,
    /// Scaling is suspended: as it is.
    Suspended,
    /// Nothing is known about the backlog: as it is.
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
            Self::MinWorkers => "MinWorkers",
            Self::Total => "Total",
            Self::Connections => "Connections",
            Self::NotStarting => "NotStarting",
            Self::Stabilization => "Stabilization",
            Self::Paused => "Paused",
            Self::Suspended => "Suspended",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether more is asked for than there will be.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::Total | Self::Connections | Self::NotStarting)
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
        write!(f, "{workers_desired} workers on {pods_desired} pods: {reason}")?;
        match (&self.demand, &self.inputs) {
            (Some(demand), Some(inputs)) => write!(f, " (demand {demand}: {inputs})"),
            _ => Ok(()),
        }
    }
}
