//! What is said of a connection that could not be made, or was broken off by us.

use super::uri::wrong;
use crate::Error;

/// The one text for a server that says something else than Postgres does. What exactly is logged at debug
/// level alone: told to somebody who chose the address, it would tell what listens there.
pub(super) const NO_POSTGRES: &str =
    "what listens there does not speak the Postgres protocol: check host and port";

/// A server's own words are cut after this many bytes: they end up in logs and conditions.
const WORDS: usize = 2000;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody answers there, or somebody hung up.
    Unreachable(String),
    /// It is no Postgres, or one that breaks the protocol's bounds; the detail is for the log.
    Protocol(String),
    /// The name means an address that is out of reach.
    Forbidden(String),
    /// TLS is refused, or a certificate.
    Tls(String),
    /// The way of logging in is refused by us.
    Login(String),
    /// It takes no writes, or is not of the kind that was asked for.
    Unsuitable(String),
    /// The server refused; sqlx hears it in the server's words. Whether it had asked who we are by then.
    Refused { asked: bool },
}

impl Fault {
    pub(super) fn io(error: &std::io::Error) -> Self {
        Self::Unreachable(words_of(error))
    }

    /// As an error of this crate about the server at `place`.
    pub(super) fn at(self, place: &str) -> Error {
        match self {
            Self::Unreachable(why) => Error::Unreachable(format!("{place}: {why}")),
            Self::Protocol(detail) => {
                tracing::debug!(place, detail, "not the Postgres protocol");
                Error::Unreachable(format!("{place}: {NO_POSTGRES}"))
            }
            Self::Forbidden(why) => wrong(why),
            Self::Tls(why) => Error::Tls(format!("{place}: {why}")),
            Self::Login(why) => Error::Login(format!("{place}: {why}")),
            Self::Unsuitable(why) => Error::ReadOnly(format!("{place}: {why}")),
            Self::Refused { .. } => Error::Unreachable(format!("{place}: the server refused the connection")),
        }
    }
}

/// In words, without the number of the operating system.
fn words_of(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the server hung up".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

/// A server's words, no longer than [`WORDS`].
pub(crate) fn shorten(words: &str) -> String {
    if words.len() <= WORDS {
        return words.to_owned();
    }
    let end = (0..=WORDS).rev().find(|at| words.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &words[..end])
}
