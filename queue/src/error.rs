//! The errors of this crate. Callers handle each variant differently.

use crate::{database_error::describe, foreign_text::shorten, timeouts::STATEMENT_TIMEOUT};

/// Our SQLSTATE for a wrong isolation level. It is the only one that is not about the values that were sent.
const WRONG_ISOLATION: &str = "RL007";

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server does not answer, closed the connection, or is not Postgres. A later attempt may succeed.
    /// The message begins with `HOST:PORT/DATABASE: `, like those of `ReadOnly`, `Login`, `Tls` and
    /// `ServerTooOld`.
    #[error("{0}")]
    Unreachable(String),
    /// The server accepts no writes: it is a standby, or set to read only. A later attempt may succeed, after
    /// a failover or on another server behind the same name.
    #[error("{0}")]
    ReadOnly(String),
    /// Postgres did not answer within [`STATEMENT_TIMEOUT`].
    #[error("Postgres did not answer within {STATEMENT_TIMEOUT:?}")]
    Timeout,
    /// The URL cannot be used. The message names no server, because the URL may have none.
    #[error("{0}")]
    Url(String),
    /// The server refuses the login (user, password, database), or we refuse its authentication method.
    #[error("{0}")]
    Login(String),
    /// TLS is not possible in the way that `sslmode` requires, or a certificate is invalid.
    #[error("{0}")]
    Tls(String),
    /// The server is older than every supported release.
    #[error("{0}")]
    ServerTooOld(String),
    /// The database has the encoding `SQL_ASCII`, which does not check text.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// NOTIFY does not work through a connection pooler.
    #[error("NOTIFY does not work through a connection pooler; the queue is polled instead")]
    NoNotify,
    /// The database has no schema `rowlock`.
    #[error("this database has no rowlock schema; run `rowlock migrate`")]
    SchemaMissing,
    /// The schema belongs to a role that is neither this user, nor one that it is a member of, nor the owner
    /// of the database.
    #[error(
        "the schema \"rowlock\" belongs to the role \"{owner}\"; connect as a member of that role, or drop \
         the schema if you do not know the role"
    )]
    SchemaOfAnother {
        /// The role.
        owner: String,
    },
    /// The schema `rowlock` has tables of another program.
    #[error(
        "the schema \"rowlock\" holds tables that are not Rowlock's (\"{object}\"); rename that schema, or \
         use another database"
    )]
    SchemaTaken {
        /// One of its tables or views.
        object: String,
    },
    /// The schema is from an earlier release.
    #[error("the rowlock schema is at version {found}, this release needs {known}; run `rowlock migrate`")]
    SchemaOlder {
        /// The version in the database.
        found: i32,
        /// The version of this release.
        known: i32,
    },
    /// The schema is from a later release, or was changed by hand.
    #[error(
        "the rowlock schema is at version {found}, this release supports {known}; use a newer release of \
         rowlock"
    )]
    SchemaNewer {
        /// The version in the database.
        found: i32,
        /// The version of this release.
        known: i32,
    },
    /// One of our SQL functions refused the call, with one of our SQLSTATEs (`RL…`).
    #[error("{message}{}", hint.as_deref().map(|hint| format!(". {hint}")).unwrap_or_default())]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// What is wrong.
        message: String,
        /// What to change.
        hint: Option<String>,
    },
    /// Another instance has rescued the tasks of this instance. This instance can change nothing from now on.
    #[error("the instance lost its lease and is fenced")]
    Gone,
    /// Some rows cannot be read or written, and maintenance went on with the others. Names the rows.
    #[error("{0}")]
    Rows(String),
    /// Any other error of Postgres.
    #[error("Postgres: {}", describe(.0))]
    Database(sqlx::Error),
}

impl Error {
    /// All values of [`Self::metric_label`].
    pub const METRIC_LABELS: [&str; 13] = [
        "unreachable",
        "read_only",
        "timeout",
        "url",
        "login",
        "tls",
        "server_too_old",
        "encoding",
        "no_notify",
        "schema",
        "refused",
        "gone",
        "database",
    ];

    /// Whether the same call may work later, unchanged.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::ReadOnly(_) | Self::Timeout => true,
            // Deadlock, serialization failure, lock timeout, cancelled. 23505: a claim was sent twice with
            // one token, and both are running. 53xxx: out of connections or memory; 58xxx: a disk error.
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                matches!(code.as_ref(), "40P01" | "40001" | "55P03" | "57014" | "23505")
                    || code.starts_with("53")
                    || code.starts_with("58")
            }),
            _ => false,
        }
    }

    /// Whether the values that were sent caused the error, so that other values may be accepted. Postgres
    /// cannot store them (22xxx), they exceed a limit (54xxx), or our SQL refused them.
    #[must_use]
    pub fn is_value_error(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code != WRONG_ISOLATION,
            Self::Database(sqlx::Error::Encode(_)) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
            }
            _ => false,
        }
    }

    /// Whether a row has no partition: `check_violation` without a constraint. Nothing else raises that here.
    pub(crate) fn lacks_partition(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error))
            if error.code().as_deref() == Some("23514") && error.constraint().is_none())
    }

    /// Whether another session created the same schema or table at the same time. The second session waits
    /// for the first and then fails.
    pub(crate) fn created_concurrently(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.code().is_some_and(|code| {
            matches!(code.as_ref(), "23505" | "42P06" | "42P07" | "42710")
        }))
    }

    /// Whether a lock or an open transaction of another session blocked the statement for too long.
    pub(crate) fn is_blocked(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Database(sqlx::Error::Database(error)) => error.code().as_deref() == Some("55P03"),
            _ => false,
        }
    }

    /// The value of a metric label. The set of values is small and fixed: [`Self::METRIC_LABELS`].
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::ReadOnly(_) => "read_only",
            Self::Timeout => "timeout",
            Self::Url(_) => "url",
            Self::Login(_) => "login",
            Self::Tls(_) => "tls",
            Self::ServerTooOld(_) => "server_too_old",
            Self::UnsupportedEncoding(_) => "encoding",
            Self::NoNotify => "no_notify",
            Self::SchemaMissing
            | Self::SchemaOfAnother { .. }
            | Self::SchemaTaken { .. }
            | Self::SchemaOlder { .. }
            | Self::SchemaNewer { .. } => "schema",
            Self::Refused { .. } => "refused",
            Self::Gone => "gone",
            Self::Rows(_) | Self::Database(_) => "database",
        }
    }
}

/// The SQLSTATE `read_only_sql_transaction`.
pub(crate) const READ_ONLY: &str = "25006";

impl Error {
    /// An error of sqlx about the server at `location` (`HOST:PORT/DATABASE`).
    pub(crate) fn at(location: &str, error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Unreachable(why) => Self::Unreachable(format!("{location}: {why}")),
            Self::ReadOnly(why) => Self::ReadOnly(format!("{location}: {why}")),
            Self::Login(why) => Self::Login(format!("{location}: {why}")),
            error => error,
        }
    }

    /// The same during the startup of a session. There, each refusal concerns the connection: too many
    /// connections (53xxx), or an option that the server refuses.
    pub(crate) fn at_start(location: &str, error: sqlx::Error) -> Self {
        match Self::at(location, error) {
            Self::Database(sqlx::Error::Database(refusal)) => {
                let message = format!("{location}: {}", shorten(refusal.message()));
                let is_transient = refusal
                    .code()
                    .is_some_and(|code| ["53", "57", "58"].iter().any(|class| code.starts_with(class)));
                if is_transient { Self::Unreachable(message) } else { Self::Login(message) }
            }
            error => error,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(io) => {
                tracing::debug!(%error, "a connection was lost");
                Self::Unreachable(match io.kind() {
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::BrokenPipe => {
                        "the server closed the connection".to_owned()
                    }
                    _ => "the connection was lost".to_owned(),
                })
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unreachable("the connections are closed".to_owned())
            }
            sqlx::Error::Protocol(_) => {
                tracing::debug!(%error, "not the Postgres protocol");
                Self::Unreachable("it does not speak the Postgres protocol".to_owned())
            }
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Self::Tls(error.to_string()),
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default().into_owned();
                let hint = refusal
                    .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                    .and_then(|refusal| refusal.hint().map(shorten));
                let message = shorten(refusal.message());
                match code.as_str() {
                    "RL006" => Self::Gone,
                    ours if ours.starts_with("RL") => Self::Refused { code, message, hint },
                    // Shutting down, starting up or crashed; connection failures; no such server behind the
                    // pooler (08xxx).
                    "57P01" | "57P02" | "57P03" | "57P05" => Self::Unreachable(message),
                    lost if lost.starts_with("08") => Self::Unreachable(message),
                    READ_ONLY => Self::ReadOnly(format!("the server takes no writes: {message}")),
                    // Wrong user, password or database name.
                    "28000" | "28P01" | "3D000" => Self::Login(message),
                    _ => Self::Database(error),
                }
            }
            _ => Self::Database(error),
        }
    }
}
