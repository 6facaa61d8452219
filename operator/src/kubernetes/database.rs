//! From a Secret to a database with our tables.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use rowlock_crds::{ConditionReason, TaskQueue};
use rowlock_queue::{Connect, Db, Error, Identity};
use url::Url;

use super::apply::{WriteError, bounded};
use super::config::Config;

/// One for the statistics, one for what people's changes and the caretaker need beside them.
const CONNECTIONS: u32 = 2;

/// Which key of which Secret holds the URL of a database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) namespace: String,
    pub(crate) secret: String,
    pub(crate) key: String,
}

/// Why a database cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: ConditionReason,
    pub(crate) message: String,
}

impl Trouble {
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.secret, self.key)
    }
}

impl Source {
    /// Where a `TaskQueue` says that its database is.
    pub(crate) fn of(one: &TaskQueue) -> Option<Self> {
        let secret = &one.spec.database.as_ref()?.secret_ref;
        Some(Self { namespace: one.namespace()?, secret: secret.name.clone(), key: secret.key.clone() })
    }

    /// Whether that is where its database is.
    pub(crate) fn is_of(&self, one: &TaskQueue) -> bool {
        let secret = one.spec.database.as_ref().map(|database| &database.secret_ref);
        one.metadata.namespace.as_ref() == Some(&self.namespace)
            && secret.is_some_and(|secret| (&secret.name, &secret.key) == (&self.secret, &self.key))
    }

    /// The URL in the Secret, with the host as it is called from the operator's namespace.
    pub(crate) async fn url(&self, client: &Client, config: &Config) -> Result<String, Trouble> {
        let Self { namespace, secret, key } = self;
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = match bounded(api.get_opt(secret)).await {
            Ok(found) => found,
            Err(error) => return Err(unreadable(&error, self, config)),
        };
        let Some(found) = found else {
            let message = format!(
                "there is no Secret `{secret}`: create it, with the URL of the database under the key `{key}`"
            );
            return Err(Trouble::new(ConditionReason::SecretNotFound, message));
        };
        let data = found.data.unwrap_or_default();
        let Some(value) = data.get(key) else {
            let keys: Vec<&str> = data.keys().map(String::as_str).collect();
            let keys = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            let message = format!(
                "the Secret `{secret}` has no key `{key}` but {keys}: set spec.database.secretRef.key"
            );
            return Err(Trouble::new(ConditionReason::SecretInvalid, message));
        };
        let text = String::from_utf8_lossy(&value.0);
        resolve(&text, namespace).ok_or_else(|| {
            let message = format!(
                "`{key}` of the Secret `{secret}` is no URL of a database: write postgres://user:password@host:5432/database"
            );
            Trouble::new(ConditionReason::SecretInvalid, message)
        })
    }
}

/// A URL with a host that is known from every namespace: one without dots is a Service beside the `TaskQueue`.
fn resolve(text: &str, namespace: &str) -> Option<String> {
    let mut url = Url::parse(text.trim()).ok()?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return None;
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    if host.is_empty() && !url.query_pairs().any(|(name, _)| name == "host") {
        return None;
    }
    if !host.is_empty() && host != "localhost" && !host.contains(['.', ':']) {
        url.set_host(Some(&format!("{host}.{namespace}.svc"))).ok()?;
    }
    Some(url.into())
}

fn unreadable(error: &WriteError, source: &Source, config: &Config) -> Trouble {
    match error {
        WriteError::Api(kube::Error::Api(status)) if status.code == 403 => {
            forbidden(&source.namespace, &status.message, config)
        }
        error => {
            let message = format!("the Secret `{}` cannot be read: {error}", source.secret);
            Trouble::new(ConditionReason::NotObserved, message)
        }
    }
}

/// What to do about missing rights. The binding has a name of this release alone, which its chart does not use: it may make its own later.
pub(crate) fn forbidden(namespace: &str, said: &str, config: &Config) -> Trouble {
    let Config { cluster_role, service_account, lease_namespace, .. } = config;
    let message = format!(
        "the operator has no rights in the namespace `{namespace}`: run `kubectl create rolebinding {cluster_role}-by-hand -n {namespace} \
         --clusterrole={cluster_role} --serviceaccount={lease_namespace}:{service_account}` ({said})"
    );
    Trouble::new(ConditionReason::Forbidden, message)
}

/// Connects, and makes or changes the tables.
pub(crate) async fn open(url: String) -> Result<Db, Trouble> {
    let db = Db::connect(&connect(url)).await.map_err(|error| trouble(&error))?;
    if let Err(trouble) = migrate(&db).await {
        db.close().await;
        return Err(trouble);
    }
    Ok(db)
}

/// Makes or changes the tables where they are not those of this release.
pub(crate) async fn prepare(db: &Db) -> Result<(), Trouble> {
    match db.check_schema().await {
        Err(Error::SchemaMissing | Error::SchemaOlder { .. }) => migrate(db).await,
        other => other.map_err(|error| trouble(&error)),
    }
}

async fn migrate(db: &Db) -> Result<(), Trouble> {
    let Err(error) = db.migrate().await else { return Ok(()) };
    let found = trouble(&error);
    if found.may_pass() || found.is_in_schema() {
        return Err(found);
    }
    let message = format!("the tables cannot be made: {error}; let the user of the URL own the database");
    Err(Trouble::new(ConditionReason::MigrationFailed, message))
}

/// Which database it is.
pub(crate) async fn identity(db: &Db) -> Result<Identity, Trouble> {
    rowlock_queue::identity(db).await.map_err(|error| trouble(&error))
}

pub(crate) fn connect(url: String) -> Connect {
    Connect { url, application_name: "rowlock-operator".to_owned(), max_connections: CONNECTIONS }
}

/// A database's error in the words of a condition.
pub(crate) fn trouble(error: &Error) -> Trouble {
    let reason = match error {
        Error::Unreachable(_) | Error::Timeout => ConditionReason::ConnectionFailed,
        Error::SchemaNewer { .. } => ConditionReason::SchemaTooNew,
        Error::SchemaMissing | Error::SchemaOlder { .. } => ConditionReason::Migrating,
        Error::Unsupported(said) if said.contains("too old") || said.contains("URL") => {
            ConditionReason::DatabaseUnsupported
        }
        Error::Unsupported(_) => ConditionReason::AccessDenied,
        _ if error.is_transient() => ConditionReason::ConnectionFailed,
        _ => ConditionReason::AccessDenied,
    };
    Trouble::new(reason, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_dots_is_a_service_of_the_namespace() {
        let table = [
            ("postgres://u:p@db/d", Some("postgres://u:p@db.shop.svc/d")),
            (
                "postgresql://u:p%40@db:5433/d?sslmode=require\n",
                Some("postgresql://u:p%40@db.shop.svc:5433/d?sslmode=require"),
            ),
            ("postgres://u@db.other/d", Some("postgres://u@db.other/d")),
            ("postgres://u@10.0.0.1:5432/d", Some("postgres://u@10.0.0.1:5432/d")),
            ("postgres://u@[::1]:5432/d", Some("postgres://u@[::1]:5432/d")),
            ("postgres://u@localhost/d", Some("postgres://u@localhost/d")),
            ("mysql://u@db/d", None),
            ("db", None),
            ("", None),
            ("postgres:///d", None),
        ];
        for (text, expected) in table {
            assert_eq!(resolve(text, "shop").as_deref(), expected, "{text}");
        }
    }
}
