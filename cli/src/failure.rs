//! Why a command failed: a message, a hint and an exit code for scripts.

use rowlock_queue::Error;
use std::error::Error as _;
use std::fmt;

const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const DATABASE: u8 = 4;
const REFUSED: u8 = 5;

/// The SQLSTATE for a queue that does not exist.
const UNKNOWN_QUEUE: &str = "RL001";

#[cfg(test)]
pub(crate) const ALL_CODES: [u8; 6] = [DONE, FAILED, USAGE, NOT_FOUND, DATABASE, REFUSED];

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message) }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: NOT_FOUND, ..Self::new(message) }
    }

    /// The reader of standard output has gone away, as in `rowlock tasks | head`. The command ends without an
    /// error.
    pub(crate) fn reader_gone() -> Self {
        Self { code: DONE, ..Self::new("the reader of standard output has gone away") }
    }

    /// Standard output cannot be written.
    pub(crate) fn unwritten(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::reader_gone();
        }
        Self::new(format!("standard output cannot be written: {error}"))
            .hint("the command was carried out, but its result is lost; check before you repeat it")
    }

    /// Whether the command ends with exit code 0 nevertheless.
    pub(crate) fn is_done(&self) -> bool {
        self.code == DONE
    }

    pub(crate) fn is_usage(&self) -> bool {
        self.code == USAGE
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<rowlock_local::Error> for Failure {
    fn from(error: rowlock_local::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let (code, message, hint) = match error {
            Error::Unreachable(_) | Error::Timeout => {
                let hint = if text.contains("certificate") {
                    "check sslmode and sslrootcert of --database-url, and the server's certificate"
                } else {
                    "check --database-url and whether the server runs"
                };
                (DATABASE, text, Some(hint.to_owned()))
            }
            Error::ReadOnly(_) => {
                let hint =
                    "use the primary's address, or list all servers: postgres://user:password@a,b/database";
                (DATABASE, text, Some(hint.to_owned()))
            }
            Error::Url(_)
            | Error::Login(_)
            | Error::Tls(_)
            | Error::ServerTooOld(_)
            | Error::UnsupportedEncoding(_)
            | Error::SchemaMissing
            | Error::SchemaOfAnother { .. }
            | Error::SchemaTaken { .. }
            | Error::SchemaOlder { .. }
            | Error::SchemaNewer { .. } => (DATABASE, text, None),
            Error::Refused { code, message, hint } if code == UNKNOWN_QUEUE => (NOT_FOUND, message, hint),
            Error::Refused { message, hint, .. } => (REFUSED, message, hint),
            // A standby, or no free connection: other arguments would not help.
            error if error.is_transient() => {
                let standby = text.contains("read-only transaction");
                (
                    DATABASE,
                    text,
                    standby.then(|| "this server is read-only; use the primary's address".to_owned()),
                )
            }
            _ => (FAILED, text, None),
        };
        Self { code, message, hint }
    }
}
