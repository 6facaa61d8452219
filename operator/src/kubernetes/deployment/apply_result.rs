//! The outcome of a pass over the objects of a queue.

use rowlock_crds::ConditionReason;

use crate::kubernetes::api::writer::WriteError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was tried: the database or the namespace cannot be used.
    NotTried,
    /// All objects are what they should be.
    Done,
    /// The change waits for something else.
    Waiting(String),
    /// An object of that name belongs to another owner.
    Foreign(String),
    /// The Deployment of `spec.targetRef` cannot be scaled.
    Unsuitable(ConditionReason, String),
    /// That Deployment is scaled, but its pods are not what the `TaskQueue` asks for.
    Mismatch(String),
    /// The API server rejects the pod template.
    Rejected(String),
    /// The operator lacks the rights.
    Forbidden(String),
    /// A write failed; the next pass tries again.
    Failed(String),
}

impl Outcome {
    /// The operator updates that many queues at a time.
    pub(crate) fn waiting_for_slot(at_once: u32) -> Self {
        Self::Waiting(format!(
            "waiting for a rollout slot: after a new release, or with another worker image or resources, the \
             operator updates {at_once} queues at a time"
        ))
    }

    /// Whether the number of pods cannot be changed, until a user changes something.
    pub(crate) const fn is_held(&self) -> bool {
        matches!(self, Self::Foreign(_) | Self::Unsuitable(..))
    }

    pub(crate) fn of(error: &WriteError) -> Self {
        match error {
            WriteError::Api(kube::Error::Api(status)) if status.code == 403 => {
                Self::Forbidden(status.message.clone())
            }
            error => {
                tracing::debug!(%error, "not applied; trying again");
                Self::Failed(error.to_string())
            }
        }
    }
}
