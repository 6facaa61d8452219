//! The outcome of a pass over the objects of a queue.

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
    /// The API server rejects the pod template.
    Rejected(String),
    /// The operator lacks the rights.
    Forbidden(String),
    /// A write failed; the next pass tries again.
    Failed(String),
}

impl Outcome {
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
