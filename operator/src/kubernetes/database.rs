//! From a Secret to a database with our tables.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use rowlock_crds::{ConditionReason, TaskQueue};
use rowlock_queue::{Connect, Db, Error, Identity, UrlTrust};

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

    /// The URL in the Secret, which can be used.
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
        let url = String::from_utf8_lossy(&value.0).trim().to_owned();
        let checked = connect(url.clone(), self).check();
        checked.map_err(|error| {
            let message = format!("`{key}` of the Secret `{secret}` cannot be used: {error}");
            Trouble::new(ConditionReason::SecretInvalid, message)
        })?;
        Ok(url)
    }
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
pub(crate) async fn open(connect: &Connect) -> Result<Db, Trouble> {
    let db = Db::connect(connect).await.map_err(|error| trouble(&error))?;
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

/// How the operator connects: a host without dots is a Service beside the `TaskQueue`, and the URL may name no file of the operator's pod.
pub(crate) fn connect(url: String, source: &Source) -> Connect {
    Connect {
        trust: UrlTrust::Tenant,
        domain: Some(format!("{}.svc", source.namespace).into()),
        ..Connect::new(url, "rowlock-operator", CONNECTIONS)
    }
}

/// A database's error in the words of a condition.
pub(crate) fn trouble(error: &Error) -> Trouble {
    let reason = match error {
        Error::Unreachable(_) | Error::ReadOnly(_) | Error::Timeout => ConditionReason::ConnectionFailed,
        Error::SchemaNewer { .. } => ConditionReason::SchemaTooNew,
        Error::SchemaMissing | Error::SchemaOlder { .. } => ConditionReason::Migrating,
        // Somebody has to change the server, its certificate or the CA.
        Error::ServerTooOld(_) | Error::Tls(_) => ConditionReason::DatabaseUnsupported,
        Error::Url(_) => ConditionReason::SecretInvalid,
        Error::Login(_) => ConditionReason::AccessDenied,
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
        let source = Source { namespace: "shop".into(), secret: "db".into(), key: "url".into() };
        let table = [
            ("postgres://u:p@db/d", Some("db.shop.svc:5432/d")),
            ("postgresql://u:p%40@db:5433/d?sslmode=require\n", Some("db.shop.svc:5433/d")),
            ("postgres://u:p@db,db.other:5433/d", Some("db.shop.svc:5432,db.other:5433/d")),
            ("postgres://u:p@/d?host=db", Some("db.shop.svc:5432/d")),
            ("postgres://u@db.other/d", Some("db.other:5432/d")),
            ("postgres://u@10.0.0.1:5432/d", Some("10.0.0.1:5432/d")),
            ("postgres://u@[::1]:5432/d", Some("[::1]:5432/d")),
            ("postgres://u@localhost/d", Some("localhost:5432/d")),
            ("mysql://u@db/d", None),
            ("db", None),
            ("", None),
            ("postgres://u@/d", None),
            ("postgres://u@/d?host=/run/postgresql", None),
            ("postgres://u@db/d?sslrootcert=/dev/zero", None),
        ];
        for (text, expected) in table {
            assert_eq!(connect(text.into(), &source).place().ok().as_deref(), expected, "{text}");
        }
    }
}
