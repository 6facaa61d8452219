//! Why a connection attempt failed, and what to try next.

use super::fault::Fault;
use crate::Error;

/// A failed attempt to connect.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) error: Error,
    /// Refused before authentication: another encryption may be accepted.
    pub(super) try_next_encryption: bool,
    /// The server or a pooler refuses our options.
    pub(crate) rejects_options: bool,
}

impl From<Error> for DialError {
    fn from(error: Error) -> Self {
        Self { error, try_next_encryption: false, rejects_options: false }
    }
}

impl From<DialError> for Error {
    fn from(failed: DialError) -> Self {
        failed.error
    }
}

impl DialError {
    pub(super) fn from_fault(fault: Fault, location: &str) -> Self {
        let try_next_encryption = matches!(fault, Fault::Tls(_));
        Self { try_next_encryption, ..fault.at(location).into() }
    }

    pub(super) fn from_sqlx(error: sqlx::Error, location: &str, authenticating: bool) -> Self {
        let rejects_options = rejects_options(&error);
        Self {
            error: Error::at_start(location, error),
            try_next_encryption: !authenticating,
            rejects_options,
        }
    }

    /// Whether to try the next host. A refused login is the same on every host.
    pub(super) fn try_next_host(&self) -> bool {
        matches!(self.error, Error::Unreachable(_) | Error::ReadOnly(_) | Error::Tls(_) | Error::Timeout)
    }
}

/// Whether the error is about our options. Each pooler refuses them in its own way, and a server refuses a
/// setting that it does not support. Other reasons do not count: a wrong login, a missing database, too many
/// connections, or a server that is starting or stopping.
fn rejects_options(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(refusal) = error else { return false };
    let code = refusal.code().unwrap_or_default();
    let other_reason = ["28", "3D", "53", "57"].iter().any(|class| code.starts_with(class));
    let message = refusal.message().to_lowercase();
    let names_options = ["option", "startup parameter"].iter().any(|words| message.contains(words));
    !other_reason && (["08P01", "0A000", "22023"].contains(&code.as_ref()) || names_options)
}

/// Combines the failures of all hosts. If one host answers but accepts no writes, it decides the kind of the
/// error.
pub(super) fn combine(mut failures: Vec<DialError>) -> DialError {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let text = failures.iter().map(|failed| failed.error.to_string()).collect::<Vec<_>>().join("; ");
    let rejects_options = failures.iter().any(|failed| failed.rejects_options);
    let error = if failures.iter().any(|failed| matches!(failed.error, Error::ReadOnly(_))) {
        Error::ReadOnly(text)
    } else if failures.iter().all(|failed| matches!(failed.error, Error::Tls(_))) {
        Error::Tls(text)
    } else {
        Error::Unreachable(text)
    };
    DialError { rejects_options, ..error.into() }
}
