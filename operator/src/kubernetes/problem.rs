//! What is wrong with a database, a Secret or a namespace. No I/O.

use rowlock_crds::ConditionReason;
use rowlock_queue::Error;

use crate::kubernetes::sanitize::sanitize;

/// Why a database or a namespace cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: ConditionReason,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether the tables are the problem, while the database itself answers.
    pub(crate) fn is_in_schema(&self) -> bool {
        use ConditionReason::{MigrationFailed, SchemaTooNew};
        matches!(self.reason, MigrationFailed | SchemaTooNew)
    }

    /// Whether it may go away without a change by the user.
    pub(crate) fn may_pass(&self) -> bool {
        self.reason == ConditionReason::ConnectionFailed
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let reason = match error {
            Error::Unreachable(_) | Error::ReadOnly(_) | Error::Timeout => ConditionReason::ConnectionFailed,
            Error::SchemaNewer { .. } => ConditionReason::SchemaTooNew,
            Error::SchemaMissing | Error::SchemaOlder { .. } => ConditionReason::Migrating,
            Error::ServerTooOld(_) | Error::UnsupportedEncoding(_) => ConditionReason::DatabaseUnsupported,
            Error::Url(_) => ConditionReason::SecretInvalid,
            Error::Tls(_) => ConditionReason::CertificateInvalid,
            Error::Login(_) => ConditionReason::AccessDenied,
            _ if error.is_transient() => ConditionReason::ConnectionFailed,
            _ => ConditionReason::AccessDenied,
        };
        Self::new(reason, sanitize(&error.to_string()))
    }
}
