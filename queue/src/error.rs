//! What can go wrong between us and Postgres, as far as a caller treats it differently.

use crate::{connect::shorten, db::STATEMENT_TIMEOUT};

/// Of our SQLSTATEs the one that says nothing about what was sent.
const WRONG_ISOLATION: &str = "RL007";

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server does not answer, hung up, or is no Postgres. Time may heal it. Begins with `HOST:PORT/DATABASE: `, as the next ones do.
    #[error("{0}")]
    Unreachable(String),
    /// The server can be reached and takes no writes: a standby, or one that was set to be read only. Time, or another server behind the
    /// same name, may heal it.
    #[error("{0}")]
    ReadOnly(String),
    /// It did not answer within [`STATEMENT_TIMEOUT`].
    #[error("Postgres did not answer within {STATEMENT_TIMEOUT:?}")]
    Timeout,
    /// The URL says something that cannot be used. Does not begin with a place: there may be none.
    #[error("{0}")]
    Url(String),
    /// The server refuses the login (user, password, database), or asks for a password in a way that we refuse.
    #[error("{0}")]
    Login(String),
    /// TLS cannot be spoken as `sslmode` asks, or a certificate is at fault.
    #[error("{0}")]
    Tls(String),
    /// The server is older than every release that we support.
    #[error("{0}")]
    ServerTooOld(String),
    /// The database has no encoding that is checked.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// Behind a connection pooler no NOTIFY arrives.
    #[error("behind a connection pooler no NOTIFY arrives; the queue is polled")]
    NoNotify,
    /// The schema is not there.
    #[error("this database has no rowlock schema; run `rowlock migrate`")]
    SchemaMissing,
    /// Somebody made the schema who is neither this user, nor a role that it has, nor the owner of the
    /// database.
    #[error(
        "the schema \"rowlock\" belongs to the role \"{owner}\"; connect as a member of it, or, if that is none of yours, drop the schema"
    )]
    SchemaOfAnother {
        /// That role.
        owner: String,
    },
    /// There is a schema of our name with something else in it.
    #[error(
        "the schema \"rowlock\" holds tables that are not Rowlock's (\"{object}\"); rename that schema, or use another database"
    )]
    SchemaTaken {
        /// One of them.
        object: String,
    },
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
            Self::Unreachable(_) | Self::ReadOnly(_) | Self::Timeout => true,
            // Deadlock, serialization failure, lock timeout, cancelled; 53xxx: out of connections or memory, 58xxx: a disk's error.
            // 23505: a claim sent twice with one token, both under way.
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                matches!(code.as_ref(), "40P01" | "40001" | "55P03" | "57014" | "23505")
                    || code.starts_with("53")
                    || code.starts_with("58")
            }),
            _ => false,
        }
    }

    /// Whether what was sent is at fault, so that anything else sent in its place may be taken: values that Postgres cannot hold (22xxx),
    /// or that are too much (54xxx), and refusals of our own.
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

    /// Whether a row found no partition: `check_violation`, which nothing else of ours raises in a partitioned table.
    pub(crate) fn lacks_partition(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some("23514") && error.constraint().is_none())
    }

    /// Whether another session has made the same schema or table meanwhile: of two, the second one waits for
    /// the first and then fails.
    pub(crate) fn made_meanwhile(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.code().is_some_and(|code| {
            matches!(code.as_ref(), "23505" | "42P06" | "42P07" | "42710")
        }))
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
            Self::ReadOnly(_) => "read_only",
            Self::Timeout => "timeout",
            Self::Url(_)
            | Self::Login(_)
            | Self::Tls(_)
            | Self::ServerTooOld(_)
            | Self::UnsupportedEncoding(_)
            | Self::NoNotify => "unsupported",
            Self::SchemaMissing
            | Self::SchemaOfAnother { .. }
            | Self::SchemaTaken { .. }
            | Self::SchemaOlder { .. }
            | Self::SchemaNewer { .. } => "schema",
            Self::Refused { .. } => "refused",
            Self::Gone => "gone",
            Self::Database(_) => "database",
        }
    }
}

/// The SQLSTATE `read_only_sql_transaction`.
pub(crate) const READ_ONLY: &str = "25006";

impl Error {
    /// What sqlx says of the server at `place`.
    pub(crate) fn at(place: &str, error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Unreachable(why) => Self::Unreachable(format!("{place}: {why}")),
            Self::ReadOnly(why) => Self::ReadOnly(format!("{place}: {why}")),
            Self::Login(why) => Self::Login(format!("{place}: {why}")),
            error => error,
        }
    }

    /// The same for a session that did not begin, where every refusal is one of the connection: too many of them (53xxx), or a setting of
    /// the start.
    pub(crate) fn at_start(place: &str, error: sqlx::Error) -> Self {
        match Self::at(place, error) {
            Self::Database(sqlx::Error::Database(refusal)) => {
                let said = format!("{place}: {}", shorten(refusal.message()));
                let may_pass = refusal
                    .code()
                    .is_some_and(|code| ["53", "57", "58"].iter().any(|class| code.starts_with(class)));
                if may_pass { Self::Unreachable(said) } else { Self::Login(said) }
            }
            error => error,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(io) => {
                tracing::debug!(%error, "a connection broke");
                Self::Unreachable(match io.kind() {
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::BrokenPipe => {
                        "the server hung up".to_owned()
                    }
                    _ => "the connection broke".to_owned(),
                })
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unreachable("the connections are closed".to_owned())
            }
            sqlx::Error::Protocol(_) => {
                tracing::debug!(%error, "not the Postgres protocol");
                Self::Unreachable("what it says is not the Postgres protocol".to_owned())
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
                    // Shutting down, starting up, crashed; connection failures; no such server behind the pooler (08xxx).
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
