//! Why a connection could not be made, or why the proxy closed it.

use super::uri::wrong;
use crate::Error;

/// The only message about a server that does not speak the protocol of Postgres. Details are only logged, at
/// debug level: they would tell a tenant, who chose the address, which program listens there.
pub(super) const NOT_POSTGRES: &str =
    "the program at this address does not speak the Postgres protocol: check host and port";

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server does not answer, or closed the connection.
    Unreachable(String),
    /// The server is not Postgres, or breaks a limit of the protocol. The detail is only logged.
    Protocol(String),
    /// The host resolves to a forbidden address.
    Forbidden(String),
    /// TLS or a certificate was refused.
    Tls(String),
    /// We refuse the authentication method.
    Login(String),
    /// The server accepts no writes, or is not of the kind that `target_session_attrs` asks for.
    Unsuitable(String),
    /// The server refused the session; sqlx has its message. `authenticating`: the refusal came after a
    /// request for authentication.
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
        std::io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}
