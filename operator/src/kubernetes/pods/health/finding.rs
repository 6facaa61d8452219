//! What keeps one pod from working.

use std::time::Duration;

use rowlock_crds::ConditionReason;

use crate::kubernetes::problem::Problem;

/// How long a step of a start may take before the status says what the pod waits for.
pub(super) const SLOW: Duration = Duration::from_secs(30);

/// An older failure no longer counts: twice the kubelet's longest back-off between two restarts.
pub(super) const RECENTLY: Duration = Duration::from_mins(10);

/// Inputs that are not in the status of the pods.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HealthInputs {
    /// The port on which the handler is expected to listen.
    pub(crate) port: u16,
    /// Instances of the queue that have joined the database; `None` if unknown.
    pub(crate) instances: Option<i64>,
}

/// What keeps a pod from working.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) problem: Problem,
    /// Not a problem yet: the start takes long.
    pub(super) is_slow: bool,
    /// More pods of this template would fail in the same way.
    pub(super) blocks_scaling: bool,
    /// The events of the pod say more.
    pub(super) read_events: bool,
}

impl Finding {
    pub(super) fn new(reason: ConditionReason, message: String) -> Self {
        Self {
            problem: Problem::new(reason, message),
            is_slow: false,
            blocks_scaling: false,
            read_events: false,
        }
    }

    pub(super) fn slow(message: String) -> Self {
        Self { is_slow: true, ..Self::new(ConditionReason::Progressing, message) }
    }
}
