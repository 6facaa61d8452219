//! What can go wrong between us and Postgres, as far as a caller treats it differently.

use crate::db::STATEMENT_TIMEOUT;

/// Of our SQLSTATEs the one that says nothing about what was sent.
const WRONG_ISOLATION: &str = "RL007";

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server does not answer, or hung up. Time may heal it.
    #[error("Postgres cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer within [`STATEMENT_TIMEOUT`].
    #[error("Postgres did not answer within {STATEMENT_TIMEOUT:?}")]
    Timeout,
    /// The address or the server cannot work, whatever the time.
    #[error("{0}")]
    Unsupported(String),
    /// Behind a connection pooler nobody hears the bell.
    #[error("behind a connection pooler no bell is heard; the queue is polled")]
    NoBell,
    /// The schema is not there.
    #[error("this database has no rowlock schema; run `rowlock migrate`")]
    SchemaMissing,
    /// The schema is of an earlier release.
    #[error("the rowlock schema is at version {found}, this release needs {known}; run `rowlock migrate`")]
    SchemaOlder {
        /// The version in the database.
        found: i32,
        /// The version of this release.
        known: i32,
    },
    /// The schema is of a later release, or was changed by hand.
    #[error(
        "the rowlock schema is at version {found}, this release knows {known}; use a newer release of rowlock"
    )]
    SchemaNewer {
        /// The version in the database.
        found: i32,
        /// The version of this release.
        known: i32,
    },
    /// Refused by one of our verbs, with an SQLSTATE of ours (`RL…`).
    #[error("{message}{}", hint.as_deref().map(|hint| format!(". {hint}")).unwrap_or_default())]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// What is wrong.
        message: String,
        /// What to change.
        hint: Option<String>,
    },
    /// The instance was ended by a rescue: it may change nothing any more.
    #[error("the instance lost its lease and is fenced")]
    Gone,
    /// Anything else Postgres said.
    #[error("Postgres: {0}")]
    Database(sqlx::Error),
}

impl Error {
    /// Whether the same call may work later, unchanged.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout => true,
            // Deadlock, serialization failure, lock timeout, cancelled; 53xxx: out of connections or memory, 58xxx: a disk's error.
            // 23505: a claim sent twice with one token, both under way. 25006: a failover, and this is a standby yet.
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                matches!(code.as_ref(), "40P01" | "40001" | "55P03" | "57014" | "23505" | "25006")
                    || code.starts_with("53")
                    || code.starts_with("58")
            }),
            _ => false,
        }
    }

    /// Whether what was sent is at fault, so that anything else sent in its place may be taken: values that Postgres cannot hold (22xxx),
    /// or that are too much (54xxx), and refusals of our own.
    #[must_use]
    pub fn blames_the_values(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code != WRONG_ISOLATION,
            Self::Database(sqlx::Error::Encode(_)) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
            }
            _ => false,
        }
    }

    /// Whether a row found no partition: `check_violation`, which nothing else of ours raises in a partitioned table.
    pub(crate) fn lacks_partition(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some("23514") && error.constraint().is_none())
    }

    /// Whether somebody else's lock or open transaction was in the way for longer than we wait.
    pub(crate) fn waits_for_others(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Database(sqlx::Error::Database(error)) => error.code().as_deref() == Some("55P03"),
            _ => false,
        }
    }

    /// A name for a metric's label: few and fixed.
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Unsupported(_) | Self::NoBell => "unsupported",
            Self::SchemaMissing | Self::SchemaOlder { .. } | Self::SchemaNewer { .. } => "schema",
            Self::Refused { .. } => "refused",
            Self::Gone => "gone",
            Self::Database(_) => "database",
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_) => Self::Unreachable(error.to_string()),
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Self::Unsupported(error.to_string()),
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default().into_owned();
                let hint = refusal
                    .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                    .and_then(|refusal| refusal.hint().map(str::to_owned));
                match code.as_str() {
                    "RL006" => Self::Gone,
                    ours if ours.starts_with("RL") => {
                        Self::Refused { code, message: refusal.message().to_owned(), hint }
                    }
                    // Shutting down, starting up, crashed; connection failures; no such server behind the pooler (08xxx).
                    "57P01" | "57P02" | "57P03" | "57P05" => Self::Unreachable(refusal.message().to_owned()),
                    lost if lost.starts_with("08") => Self::Unreachable(refusal.message().to_owned()),
                    // Wrong user, password or database name.
                    "28000" | "28P01" | "3D000" => Self::Unsupported(refusal.message().to_owned()),
                    _ => Self::Database(error),
                }
            }
            _ => Self::Database(error),
        }
    }
}
