//! Reasons of events about a `TaskQueue`, in addition to those of its conditions.

/// The reason of an event that is not a changed condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventReason {
    /// The condition `Ready` has become true.
    Ready,
    /// There are more pods than before.
    ScaledUp,
    /// There are fewer pods than before.
    ScaledDown,
    /// The operator restores the pod template of the Deployment after a foreign change.
    TemplateRestored,
    /// The operator restores the number of pods after a foreign change.
    ReplicasRestored,
    /// A share of the pods gets a changed template first.
    CanaryStarted,
    /// The other pods get the changed template, too.
    CanaryPassed,
    /// A preStop hook of the template cuts running tasks short.
    PreStop,
    /// A pod has ended with running tasks, which were taken back at once.
    PodEnded,
    /// An annotation or label `rowlock.dev/…` is unknown.
    UnknownName,
}

impl EventReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::ScaledUp,
        Self::ScaledDown,
        Self::TemplateRestored,
        Self::ReplicasRestored,
        Self::CanaryStarted,
        Self::CanaryPassed,
        Self::PreStop,
        Self::PodEnded,
        Self::UnknownName,
    ];

    /// The name in the event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::ScaledUp => "ScaledUp",
            Self::ScaledDown => "ScaledDown",
            Self::TemplateRestored => "TemplateRestored",
            Self::ReplicasRestored => "ReplicasRestored",
            Self::CanaryStarted => "CanaryStarted",
            Self::CanaryPassed => "CanaryPassed",
            Self::PreStop => "PreStop",
            Self::PodEnded => "PodEnded",
            Self::UnknownName => "UnknownName",
        }
    }

    /// The `action` of the event: what the operator did or tried.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Ready => "Reconcile",
            Self::ScaledUp | Self::ScaledDown => "Scale",
            Self::TemplateRestored => "RestoreTemplate",
            Self::ReplicasRestored => "RestoreReplicas",
            Self::CanaryStarted | Self::CanaryPassed => "RollOut",
            Self::PreStop => "CheckTemplate",
            Self::PodEnded => "Rescue",
            Self::UnknownName => "CheckNames",
        }
    }
}
