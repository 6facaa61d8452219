//! Why a connection could not be made, or was closed by the proxy.

use super::uri::wrong;
use crate::Error;

/// The only message about a server that does not speak the protocol of Postgres. The details are logged at
/// debug level only: they would tell a tenant, who chose the address, which program listens there.
pub(super) const NOT_POSTGRES: &str =
    "what listens there does not speak the Postgres protocol: check host and port";

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server does not answer, or hung up.
    Unreachable(String),
    /// The server is not Postgres, or breaks a limit of the protocol. The detail is only logged.
    Protocol(String),
    /// The host resolves to a forbidden address.
    Forbidden(String),
    /// TLS or a certificate was refused.
    Tls(String),
    /// We refuse the authentication method.
    Login(String),
    /// The server takes no writes, or is not of the kind that `target_session_attrs` asks for.
    Unsuitable(String),
    /// The server refused the session; sqlx has its message. `authenticating`: after it asked for
    /// authentication.
    Refused { authenticating: bool },
}

impl Fault {
    pub(super) fn io(error: &std::io::Error) -> Self {
        Self::Unreachable(describe_io(error))
    }

    /// As an error of this crate about the server at `location` (`HOST:PORT/DATABASE`).
    pub(super) fn at(self, location: &str) -> Error {
        match self {
            Self::Unreachable(why) => Error::Unreachable(format!("{location}: {why}")),
            Self::Protocol(detail) => {
                tracing::debug!(location, detail, "not the Postgres protocol");
                Error::Unreachable(format!("{location}: {NOT_POSTGRES}"))
            }
            Self::Forbidden(why) => wrong(why),
            Self::Tls(why) => Error::Tls(format!("{location}: {why}")),
            Self::Login(why) => Error::Login(format!("{location}: {why}")),
            Self::Unsuitable(why) => Error::ReadOnly(format!("{location}: {why}")),
            Self::Refused { .. } => {
                Error::Unreachable(format!("{location}: the server refused the connection"))
            }
        }
    }
}

/// Without the error number of the operating system.
fn describe_io(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the server hung up".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}
