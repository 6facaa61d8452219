//! What came of making a queue's objects so.

use crate::kubernetes::api::writer::WriteError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was tried, for want of a database or rights.
    NotTried,
    /// All is as it shall be.
    Done,
    /// It has to wait for others.
    Waiting(String),
    /// An object of that name belongs to somebody else.
    Foreign(String),
    /// The server does not take the template.
    Rejected(String),
    /// We may not.
    Forbidden(String),
    /// It did not work this time.
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

impl WriteError {
    /// Whether we may not.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 403)
    }

    /// What the server has against an object, rather than against us or the moment.
    pub(crate) fn rejection(&self) -> Option<String> {
        let Self::Api(kube::Error::Api(status)) = self else { return None };
        let message = &status.message;
        let refused = match status.code {
            400 | 422 => true,
            // Rights are missing for a resource; policies and admission plugins refuse an object.
            403 => !message.contains("cannot patch resource") && !message.contains("cannot create resource"),
            // Where a field is unknown to the server's schema.
            500 => message.contains("failed to create typed patch object"),
            _ => false,
        };
        refused.then(|| message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn refusals_are_told_from_missing_rights_and_bad_moments() {
        let table = [
            (422, "Deployment.apps \"x\" is invalid: image: Required value", true),
            (
                403,
                "deployments.apps \"x\" is forbidden: User \"y\" cannot patch resource \"deployments\"",
                false,
            ),
            (403, "admission webhook \"policy\" denied the request: no latest tags", true),
            (409, "the object has been modified", false),
            (
                500,
                "failed to create typed patch object (shop/x; apps/v1, Kind=Deployment): .spec.x: field not declared",
                true,
            ),
            (500, "etcdserver: request timed out", false),
        ];
        for (code, message, expected) in table {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            let error = WriteError::Api(kube::Error::Api(Box::new(status)));
            assert_eq!(error.rejection().is_some(), expected, "{message}");
        }
    }
}
