//! Reads the Secrets and certificates that a `TaskQueue` names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
use rowlock_crds::{CaKind, CaRef, ConditionReason, SecretKeyRef, TaskQueue, containers};
use rowlock_queue::{Connect, UrlTrust};

use crate::kubernetes::api::writer::{WriteError, bounded};
use crate::kubernetes::config::Config;
use crate::kubernetes::database::session::{CONNECTIONS, NAME, forbidden};
use crate::kubernetes::problem::Problem;
use crate::kubernetes::sanitize::sanitize;

/// Usual names for the key of a URL. If the Secret has one of them, the status suggests it. It does not name
/// other keys: the author of a `TaskQueue` need not know what every Secret contains.
const USUAL_KEYS: [&str; 8] = [
    "uri",
    "url",
    "dsn",
    "DATABASE_URL",
    "database-url",
    "database_url",
    "connection-string",
    "connectionString",
];

/// The first line of a certificate.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Limits on what is kept from Secrets and `ConfigMaps`, which may hold 1 MiB each: the operator keeps
/// several copies per database. A URL has a few hundred bytes; the list of all of Amazon's authorities has
/// 170 KiB.
const LONGEST_URL: usize = 16 << 10;
const LONGEST_CERTIFICATES: usize = 256 << 10;

/// A key of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) key: String,
}

/// The keys of the objects that lead to a database. `TaskQueues` with the same source share a controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) namespace: String,
    pub(crate) secret: Key,
    pub(crate) ca: Option<CaRef>,
    /// The Secret that the pods use instead of `secret`.
    pub(crate) worker: Option<Key>,
}

/// The contents of those keys.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Access {
    url: String,
    ca_pem: Option<Arc<str>>,
    /// The URL that the pods use, if it is a different one.
    worker_url: Option<String>,
    namespace: Arc<str>,
}

impl Key {
    fn of(reference: &SecretKeyRef) -> Self {
        Self { name: reference.name.clone(), key: reference.key.clone() }
    }

    fn is(&self, reference: &SecretKeyRef) -> bool {
        (&self.name, &self.key) == (&reference.name, &reference.key)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, secret, ca, worker } = self;
        write!(f, "{namespace}/{}/{}", secret.name, secret.key)?;
        if let Some(CaRef { kind, name, key }) = ca {
            write!(f, ", {} {name}/{key}", kind.as_str())?;
        }
        if let Some(Key { name, key }) = worker {
            write!(f, ", worker {name}/{key}")?;
        }
        Ok(())
    }
}

impl Source {
    /// The source of a `TaskQueue`.
    pub(crate) fn of(one: &TaskQueue) -> Option<Self> {
        let database = one.spec.database.as_ref()?;
        Some(Self {
            namespace: one.namespace()?,
            secret: Key::of(&database.secret_ref),
            ca: database.ca_ref.clone(),
            worker: database.worker_secret_ref.as_ref().map(Key::of),
        })
    }

    /// Whether this is the source of a `TaskQueue`.
    pub(crate) fn is_of(&self, one: &TaskQueue) -> bool {
        let Some(database) = &one.spec.database else { return false };
        let worker = match (&self.worker, &database.worker_secret_ref) {
            (Some(key), Some(reference)) => key.is(reference),
            (None, None) => true,
            _ => false,
        };
        one.metadata.namespace.as_ref() == Some(&self.namespace)
            && self.secret.is(&database.secret_ref)
            && self.ca == database.ca_ref
            && worker
    }

    /// Reads the keys.
    pub(crate) async fn access(&self, client: &Client, config: &Config) -> Result<Access, Problem> {
        let reader = Reader { client, config, namespace: &self.namespace };
        let url = reader.url(&self.secret, "secretRef").await?;
        let ca_pem = match &self.ca {
            Some(ca) => Some(reader.certificates(ca).await?.into()),
            None => None,
        };
        let worker_url = match &self.worker {
            Some(worker) => Some(
                reader.url(worker, "workerSecretRef").await.map_err(|problem| self.of_worker(&problem))?,
            ),
            None => None,
        };
        let access = Access { url, ca_pem, worker_url, namespace: self.namespace.as_str().into() };
        self.check(&access.connect(config), &self.secret)?;
        if let (Some(connect), Some(worker)) = (access.connect_as_worker(config), &self.worker) {
            self.check(&connect, worker).map_err(|problem| self.of_worker(&problem))?;
        }
        Ok(access)
    }

    /// Whether a URL can be used at all.
    fn check(&self, connect: &Connect, Key { name, key }: &Key) -> Result<(), Problem> {
        let Err(error) = connect.check() else { return Ok(()) };
        if let (rowlock_queue::Error::Tls(detail), Some(ca)) = (&error, &self.ca) {
            return Err(wrong_certificates(ca, detail));
        }
        let detail = sanitize(&error.to_string());
        let message = format!("`{key}` of the Secret `{name}`: {detail}");
        Err(Problem::new(ConditionReason::SecretInvalid, message))
    }

    /// Adds the Secret to a problem with the database.
    pub(crate) fn name_secret(&self, problem: Problem) -> Problem {
        use ConditionReason::{
            AccessDenied, CertificateInvalid, ConnectionFailed, DatabaseUnsupported, SecretInvalid,
        };
        let is_of_secret =
            [AccessDenied, CertificateInvalid, ConnectionFailed, DatabaseUnsupported, SecretInvalid]
                .contains(&problem.reason);
        if !is_of_secret || problem.message.contains("the Secret `") {
            return problem;
        }
        let Key { name, key } = &self.secret;
        Problem::new(
            problem.reason,
            format!("{} (connecting with `{key}` of the Secret `{name}`)", problem.message),
        )
    }

    /// The problem as one of the pods' login.
    pub(crate) fn of_worker(&self, problem: &Problem) -> Problem {
        let Some(Key { name, key }) = &self.worker else { return problem.clone() };
        let container = containers::WORKER;
        let message = format!(
            "the container `{container}` of the pods connects with `{key}` of the Secret `{name}` \
             (spec.database.workerSecretRef): {}",
            problem.message
        );
        Problem::new(problem.reason, message)
    }
}

impl Access {
    /// How the operator connects. The URL belongs to a tenant, while the pod is the operator's, so it is not
    /// trusted.
    pub(crate) fn connect(&self, config: &Config) -> Connect {
        Connect {
            ca_pem: self.ca_pem.clone(),
            trust: UrlTrust::Tenant,
            // A host name without dots is a Service in the namespace of the TaskQueue.
            domain: Some(format!("{}.svc", self.namespace).into()),
            tenant: Some(config.tenants.tenant(&self.namespace)),
            host_policy: Some(Arc::new(config.host_policy())),
            ..Connect::new(self.url.clone(), NAME, CONNECTIONS)
        }
    }

    /// How the pods connect.
    pub(crate) fn connect_as_worker(&self, config: &Config) -> Option<Connect> {
        let url = self.worker_url.clone()?;
        Some(Connect { url, max_connections: 1, ..self.connect(config) })
    }
}

/// Reads objects in one namespace.
struct Reader<'a> {
    client: &'a Client,
    config: &'a Config,
    namespace: &'a str,
}

impl Reader<'_> {
    /// The URL in a Secret that `field` of `spec.database` names.
    async fn url(&self, Key { name, key }: &Key, field: &str) -> Result<String, Problem> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let found = bounded(api.get_opt(name)).await;
        let found = found.map_err(|error| self.unreadable("Secret", name, &error))?.ok_or_else(|| {
            let message = format!(
                "the Secret `{name}` does not exist: create it, with the URL of the database under the key \
                 `{key}`"
            );
            Problem::new(ConditionReason::SecretNotFound, message)
        })?;
        let data = found.data.unwrap_or_default();
        let Some(value) = data.get(key) else {
            let usual = USUAL_KEYS.into_iter().filter(|usual| data.contains_key(*usual));
            let usual: Vec<&str> = usual.collect();
            let instead = if usual.is_empty() { String::new() } else { format!(" but {}", usual.join(", ")) };
            let message =
                format!("the Secret `{name}` has no key `{key}`{instead}: set spec.database.{field}.key");
            return Err(Problem::new(ConditionReason::SecretInvalid, message));
        };
        if value.0.len() > LONGEST_URL {
            let message = format!(
                "`{key}` of the Secret `{name}` has {} bytes, which is too long for the URL of a database: \
                 at most {LONGEST_URL} are allowed",
                value.0.len()
            );
            return Err(Problem::new(ConditionReason::SecretInvalid, message));
        }
        Ok(String::from_utf8_lossy(&value.0).trim().to_owned())
    }

    async fn certificates(&self, ca: &CaRef) -> Result<String, Problem> {
        let CaRef { kind, name, key } = ca;
        let found = match kind {
            CaKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
                let found = bounded(api.get_opt(name))
                    .await
                    .map_err(|error| self.unreadable("Secret", name, &error))?;
                found.map(|found| {
                    texts(found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)))
                })
            }
            CaKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
                let found = bounded(api.get_opt(name))
                    .await
                    .map_err(|error| self.unreadable("ConfigMap", name, &error))?;
                found.map(|found| {
                    let binary =
                        found.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
                    let mut all = texts(binary);
                    all.extend(found.data.unwrap_or_default());
                    all
                })
            }
        };
        let kind = kind.as_str();
        let Some(mut found) = found else {
            let message = format!(
                "the {kind} `{name}` does not exist: create it, with the certificates of the database's \
                 authority under the key `{key}`, or remove spec.database.caRef"
            );
            return Err(Problem::new(ConditionReason::CertificateInvalid, message));
        };
        let pem = found.remove(key).ok_or_else(|| wrong_certificates(ca, "the key does not exist"))?;
        if pem.len() > LONGEST_CERTIFICATES {
            let detail = format!(
                "it has {} bytes, and at most {LONGEST_CERTIFICATES} are allowed: remove authorities that \
                 the database does not use",
                pem.len()
            );
            return Err(wrong_certificates(ca, &detail));
        }
        if pem.contains(CERTIFICATE) {
            return Ok(pem);
        }
        Err(wrong_certificates(
            ca,
            &format!("it contains no certificate: write PEM, starting with {CERTIFICATE}"),
        ))
    }

    fn unreadable(&self, kind: &str, name: &str, error: &WriteError) -> Problem {
        match error {
            WriteError::Api(kube::Error::Api(status)) if status.code == 403 => {
                forbidden(self.namespace, &status.message, self.config)
            }
            error => {
                let message = format!("the {kind} `{name}` cannot be read: {}", sanitize(&error.to_string()));
                Problem::new(ConditionReason::NotObserved, message)
            }
        }
    }
}

fn texts(data: impl Iterator<Item = (String, Vec<u8>)>) -> BTreeMap<String, String> {
    data.map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned())).collect()
}

fn wrong_certificates(CaRef { kind, name, key }: &CaRef, detail: &str) -> Problem {
    let (kind, detail) = (kind.as_str(), sanitize(detail));
    let message = format!("`{key}` of the {kind} `{name}` (spec.database.caRef): {detail}");
    Problem::new(ConditionReason::CertificateInvalid, message)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn access(url: &str) -> Access {
        Access { url: url.into(), ca_pem: None, worker_url: None, namespace: "shop".into() }
    }

    #[test]
    fn a_host_without_dots_is_a_service_of_the_namespace() {
        let config = Config::parse_from(["rowlock-operator", "--worker-image", "w"]);
        let table = [
            ("postgres://u:p@db/d", Some("db.shop.svc:5432/d")),
            ("postgresql://u:p%40@db:5433/d?sslmode=require\n", Some("db.shop.svc:5433/d")),
            ("postgres://u:p@db,db.other:5433/d", Some("db.shop.svc:5432,db.other:5433/d")),
            ("postgres://u:p@/d?host=db", Some("db.shop.svc:5432/d")),
            ("postgres://u@db.other/d", Some("db.other:5432/d")),
            ("postgres://u@10.0.0.1:5432/d", Some("10.0.0.1:5432/d")),
            ("postgres://u@[2001:db8::1]:5432/d", Some("[2001:db8::1]:5432/d")),
            ("mysql://u@db/d", None),
            ("db", None),
            ("", None),
            ("postgres://u@/d", None),
            ("postgres://u@/d?host=/run/postgresql", None),
            ("postgres://u@db/d?sslrootcert=/dev/zero", None),
            // No URL leads to the operator itself.
            ("postgres://u@localhost/d", None),
            ("postgres://u@[::1]:5432/d", None),
            ("postgres://u@db.other,localhost/d", None),
            ("postgres://u@db.other/d?hostaddr=127.0.0.1", None),
            ("postgres://u@/d?host=127.0.0.1", None),
        ];
        for (text, expected) in table {
            assert_eq!(access(text).connect(&config).location().ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn task_queues_with_the_same_references_share_a_source() {
        let task_queue = |database: &str| -> TaskQueue {
            serde_yaml::from_str(&format!(
                "{{ apiVersion: rowlock.dev/v1alpha1, kind: TaskQueue, \
                 metadata: {{ name: q, namespace: shop }}, \
                 spec: {{ workers: {{ total: 1 }}, database: {database} }} }}"
            ))
            .unwrap()
        };
        let texts = [
            "{ secretRef: { name: a } }",
            "{ secretRef: { name: a, key: url } }",
            "{ secretRef: { name: a }, caRef: { name: a } }",
            "{ secretRef: { name: a }, caRef: { kind: ConfigMap, name: a } }",
            "{ secretRef: { name: a }, workerSecretRef: { name: a } }",
        ];
        let sources = texts.map(|text| Source::of(&task_queue(text)).unwrap());
        for (index, source) in sources.iter().enumerate() {
            for (other, text) in texts.iter().enumerate() {
                assert_eq!(source.is_of(&task_queue(text)), index == other, "{source} and {text}");
                assert_eq!(source.to_string() == sources[other].to_string(), index == other);
            }
        }
    }
}
