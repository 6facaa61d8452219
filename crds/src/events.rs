//! Reasons of the events about a `TaskQueue`, beside those of its conditions.

/// Why an event is written that is no change of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventReason {
    /// The condition `Ready` holds from now on.
    Ready,
    /// There are more pods than before.
    ScaledUp,
    /// There are fewer pods than before.
    ScaledDown,
    /// Somebody had changed the pod template of the Deployment.
    TemplateRestored,
    /// Somebody had changed the number of pods.
    ReplicasRestored,
    /// A container of the template has a hook that runs before its tasks are done.
    PreStop,
    /// An annotation or label begins as ours do, and means nothing.
    UnknownName,
}

impl EventReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::ScaledUp,
        Self::ScaledDown,
        Self::TemplateRestored,
        Self::ReplicasRestored,
        Self::PreStop,
        Self::UnknownName,
    ];

    /// As the event writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::ScaledUp => "ScaledUp",
            Self::ScaledDown => "ScaledDown",
            Self::TemplateRestored => "TemplateRestored",
            Self::ReplicasRestored => "ReplicasRestored",
            Self::PreStop => "PreStop",
            Self::UnknownName => "UnknownName",
        }
    }

    /// What the operator did, or tried, by the API's word for it.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Ready => "Reconcile",
            Self::ScaledUp | Self::ScaledDown => "Scale",
            Self::TemplateRestored => "RestoreTemplate",
            Self::ReplicasRestored => "RestoreReplicas",
            Self::PreStop => "CheckTemplate",
            Self::UnknownName => "CheckNames",
        }
    }
}
