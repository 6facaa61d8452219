//! A namespace with its own database and a `TaskQueue`, and the history of its tasks.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use rowlock_tests::history::{Demands, Event, Summary, check, parse, read_all};
use rowlock_tests::{observe, server as postgres};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::sync::RwLock;
use url::Url;

use crate::cluster::cluster;
use crate::journal::{Journal, now};
use crate::kubectl::{kubectl, kubectl_with};
use crate::pod_network::Route;
pub(crate) use crate::polling::{TIMEOUT, until};

/// The `TaskQueue` and its queue.
pub(crate) const NAME: &str = "emails";

/// The role binding for the operator in a namespace, as in the chart's notes (the release is `rowlock` in the
/// namespace `rowlock`).
pub(crate) const ENTRY: [&str; 5] = [
    "create",
    "rolebinding",
    "rowlock-operator-rowlock-namespace-by-hand",
    "--clusterrole=rowlock-operator-rowlock-namespace",
    "--serviceaccount=rowlock:rowlock-operator",
];

pub(crate) struct Harness {
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) journal: Journal,
    /// The address of the database for pods.
    pub(crate) route: Route,
    /// The URL of the database's superuser, for this process.
    pub(crate) url: String,
    /// An open session of it: tests poll, and each new session would start a process of the server.
    pool: PgPool,
    folder: Option<tempfile::TempDir>,
}

/// Held by every test; held exclusively by a test whose faults affect every namespace.
static EXCLUSIVE: RwLock<()> = RwLock::const_new(());

/// Runs a test with its own harness, in parallel with others.
pub(crate) async fn with_harness(name: &str, test: impl AsyncFnOnce(&Harness) -> Result<()>) -> Result<()> {
    let _turn = EXCLUSIVE.read().await;
    run_timed(name, test).await
}

/// Runs a test while no other one runs.
pub(crate) async fn exclusively(name: &str, test: impl AsyncFnOnce(&Harness) -> Result<()>) -> Result<()> {
    let _turn = EXCLUSIVE.write().await;
    run_timed(name, test).await
}

async fn run_timed(name: &str, test: impl AsyncFnOnce(&Harness) -> Result<()>) -> Result<()> {
    let harness = Harness::new(name).await?;
    let since = Instant::now();
    let result = test(&harness).await;
    eprintln!("{name}: {} s", since.elapsed().as_secs());
    harness.close(result)
}

impl Harness {
    /// A namespace that the operator manages, with a Secret for a database.
    async fn new(name: &str) -> Result<Self> {
        // The first test starts everything, which takes a while.
        let cluster = tokio::task::spawn_blocking(cluster).await?;
        let namespace = format!("test-{name}");
        let folder = tempfile::Builder::new().prefix(&format!("rowlock-{namespace}-")).tempdir()?;
        let journal = Journal::start(&cluster.pod_network, &folder.path().join("journal.jsonl"))?;
        let server = Url::parse(&tokio::task::spawn_blocking(|| postgres::url("postgres")).await?)?;
        let route = Route::to(&cluster.pod_network, server.port().context("the server's port")?)?;
        let url = database(&server, &namespace).await?;
        let client = client().await?;
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&url)?;
        let harness = Self { namespace, client, journal, route, url, pool, folder: Some(folder) };
        harness.prepare()?;
        Ok(harness)
    }

    fn prepare(&self) -> Result<()> {
        let old = ["delete", "namespace", &self.namespace, "--ignore-not-found", "--wait"];
        kubectl_with(&old, "").map_err(anyhow::Error::msg)?;
        kubectl(&["create", "namespace", &self.namespace]);
        self.kubectl(&ENTRY);
        // As with CloudNativePG: a Service of this namespace, and a Secret that names it without dots.
        let (ip, port) = (self.route.at.ip(), self.route.at.port());
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "db" },
            "spec": { "ports": [{ "port": 5432, "targetPort": port }] } });
        let endpoints = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": { "name": "db-1", "labels": { "kubernetes.io/service-name": "db" } },
            "ports": [{ "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [ip], "conditions": { "ready": true } }] });
        self.apply(&service)?;
        self.apply(&endpoints)?;
        let owner = self.namespace.replace('-', "_");
        self.secret(&format!("postgres://{owner}:{owner}@db:5432/{owner}"))
    }

    pub(crate) fn secret(&self, uri: &str) -> Result<()> {
        self.secret_named("db", uri)
    }

    pub(crate) fn secret_named(&self, name: &str, uri: &str) -> Result<()> {
        let metadata = json!({ "name": name });
        self.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
            "stringData": { "uri": uri } }))
    }

    /// The handler's container, merged with a test's fields.
    pub(crate) fn handler(&self, but: &Value) -> Value {
        let mut handler = json!({
            "name": "handler", "image": format!("{}rowlock-handler:1", cluster().images),
            "env": [{ "name": "JOURNAL", "value": self.journal.at.to_string() }],
        });
        merge(&mut handler, but);
        handler
    }

    /// A valid spec, to be merged with a test's fields.
    pub(crate) fn spec(&self, but: &Value) -> Value {
        let handler = self.handler(&json!({}));
        let mut spec = json!({
            "database": { "secretRef": { "name": "db", "key": "uri" } },
            "workers": { "total": 8, "perPod": 4, "autoscaling": { "min": 0, "scaleDownAfter": "5s" } },
            "retry": { "maxAttempts": 10, "backoff": { "fixed": "1s" } },
            "timeout": "20s",
            "template": { "spec": { "containers": [handler] } },
        });
        merge(&mut spec, but);
        spec
    }

    /// Applies the `TaskQueue` with a valid spec, merged with a test's fields.
    pub(crate) fn task_queue(&self, but: &Value) -> Result<()> {
        self.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": { "name": NAME }, "spec": self.spec(but) }))
    }

    pub(crate) fn apply(&self, manifest: &Value) -> Result<()> {
        let args = ["apply", "-n", &self.namespace, "-f", "-"];
        kubectl_with(&args, &manifest.to_string()).map_err(anyhow::Error::msg)?;
        Ok(())
    }

    /// Changes the spec by a merge patch.
    pub(crate) fn change(&self, spec: &Value) {
        self.kubectl(&["patch", "tq", NAME, "--type=merge", "-p", &json!({ "spec": spec }).to_string()]);
    }

    /// Runs kubectl in the namespace.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        tokio::task::block_in_place(|| kubectl(&[args, &["-n", &self.namespace]].concat()))
    }

    /// Waits with `kubectl wait`, as a user does.
    pub(crate) fn wait_ready(&self) {
        self.kubectl(&["wait", "--for=condition=Ready", &format!("tq/{NAME}"), "--timeout=180s"]);
    }

    pub(crate) async fn deployment(&self) -> Result<Option<Deployment>> {
        Ok(Api::namespaced(self.client.clone(), &self.namespace).get_opt(NAME).await?)
    }

    pub(crate) async fn replicas(&self) -> Result<Option<i32>> {
        Ok(self.deployment().await?.and_then(|found| found.spec?.replicas))
    }

    /// The pods of the queue, including terminating ones.
    pub(crate) async fn pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// The ready pods that are not terminating.
    pub(crate) async fn ready_pods(&self) -> Result<Vec<Pod>> {
        Ok(self.pods().await?.into_iter().filter(is_ready).collect())
    }

    /// Status and reason of a condition, and its message.
    pub(crate) async fn condition(&self, type_: &str) -> Result<(String, String)> {
        let gvk = GroupVersionKind::gvk("rowlock.dev", "v1alpha1", "TaskQueue");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "taskqueues");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let found = api.get(NAME).await?;
        let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let one = conditions.into_iter().find(|one| one["type"] == type_).unwrap_or_default();
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        Ok((format!("{} {}", text("status"), text("reason")), text("message")))
    }

    /// Waits until a condition has this status and reason; returns its message.
    pub(crate) async fn until_condition(&self, type_: &str, expected: &str) -> Result<String> {
        until(&format!("{type_} is {expected}"), || async {
            let (answer, message) = self.condition(type_).await?;
            ensure!(answer == expected, "{answer}: {message}");
            Ok(message)
        })
        .await
    }

    pub(crate) async fn until_replicas(&self, holds: impl Fn(i32) -> bool) -> Result<i32> {
        until("the number of replicas is right", || async {
            let replicas = self.replicas().await?.context("no Deployment")?;
            ensure!(holds(replicas), "{replicas}");
            Ok(replicas)
        })
        .await
    }

    /// Waits until no pod is left, not even a terminating one.
    pub(crate) async fn until_no_pods(&self) -> Result<()> {
        until("no pod is left", || async {
            let left = self.pods().await?.len();
            ensure!(left == 0, "{left}");
            Ok(())
        })
        .await
    }

    pub(crate) async fn until_pods(&self, number: usize) -> Result<Vec<Pod>> {
        until(&format!("{number} pods are ready"), || async {
            let ready = self.ready_pods().await?;
            ensure!(number <= ready.len(), "{}", ready.len());
            Ok(ready)
        })
        .await
    }

    /// Enqueues tasks with this payload in one transaction.
    pub(crate) async fn enqueue(&self, number: usize, payload: &Value) -> Result<()> {
        let at = now();
        let rows = sqlx::query(
            "select rowlock.enqueue_many($1, 'email', array_fill($2::text, array[$3::int])::json[])",
        )
        .bind(NAME)
        .bind(payload.to_string())
        .bind(i32::try_from(number)?)
        .fetch_all(&self.pool)
        .await?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        self.enqueued(ids, at);
        Ok(())
    }

    /// Records what a producer was answered.
    pub(crate) fn enqueued(&self, ids: Vec<i64>, at: u64) {
        self.journal.notes.note(&Event::Enqueued { ids: ids.clone(), at, delay_ms: 0 });
        self.journal.notes.note(&Event::Committed { ids });
    }

    /// Records that this pod's instance was killed or cut off and must be rescued.
    pub(crate) fn failed(&self, pod: &Pod) {
        self.journal.notes.note(&Event::InstanceFailed { name: pod.name_any() });
    }

    /// Runs a statement, as the superuser.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await?;
        Ok(())
    }

    /// The number that a query returns, as the superuser.
    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        Ok(self.pool.fetch_one(AssertSqlSafe(sql.to_owned())).await?.try_get(0)?)
    }

    /// The number of unfinished tasks.
    pub(crate) async fn open(&self) -> Result<i64> {
        self.count("select coalesce(sum(open), 0)::bigint from rowlock.audit()").await
    }

    pub(crate) async fn completed(&self) -> Result<i64> {
        self.count("select coalesce(sum(completed), 0)::bigint from rowlock.audit()").await
    }

    pub(crate) async fn until_completed(&self, number: i64) -> Result<()> {
        until(&format!("{number} tasks are done"), || async {
            let done = self.completed().await?;
            ensure!(number <= done, "{done}");
            Ok(())
        })
        .await
    }

    pub(crate) async fn until_drained(&self) -> Result<()> {
        until("no task is open", || async {
            let open = self.open().await?;
            ensure!(open == 0, "{open} are");
            Ok(())
        })
        .await
    }

    /// The history checker's result.
    pub(crate) async fn check(&self, demands: Demands) -> Result<Summary> {
        let log = parse(&read_all(&[&self.journal.notes.path])?);
        let end = observe(&self.url, NAME).await?;
        let (summary, violations) = check(&log, &end, demands);
        eprintln!("{}: {summary}", self.namespace);
        let errors: BTreeSet<(u16, &str)> =
            end.failures.iter().map(|failure| (failure.attempt, failure.error.as_str())).collect();
        for (attempt, error) in errors.iter().take(10) {
            eprintln!("{}: attempt {attempt} failed: {error}", self.namespace);
        }
        for violation in violations.iter().take(10) {
            eprintln!("{}: {violation}", self.namespace);
            if let Some(task) = violation.task() {
                eprintln!("{}", log.tell(task, &end));
            }
        }
        ensure!(violations.is_empty(), "{} violations", violations.len());
        Ok(summary)
    }

    /// Removes the namespace. For a failed test, prints its state first and keeps its journal.
    fn close(mut self, result: Result<()>) -> Result<()> {
        let failed = result.is_err();
        if let Err(error) = &result {
            eprintln!("{}: {error:#}", self.namespace);
        }
        for args in [
            &["get", "tq,deploy,pods", "-o", "wide"] as &[&str],
            &["describe", "tq"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "-l",
                "app.kubernetes.io/managed-by=rowlock-operator",
                "-c",
                "worker",
                "--tail=20",
                "--prefix",
            ],
        ] {
            if failed {
                let answer = kubectl_with(&[args, &["-n", &self.namespace]].concat(), "");
                eprintln!("{}", answer.unwrap_or_else(|error| error));
            }
        }
        kubectl(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]);
        let Err(error) = result else { return Ok(()) };
        let kept = self.folder.take().map(tempfile::TempDir::keep).unwrap_or_default();
        Err(error.context(format!("{}; its journal is in {}", self.namespace, kept.display())))
    }
}

/// A database whose owner has no other privilege: neither CREATEROLE nor CREATEDB.
async fn database(server: &Url, namespace: &str) -> Result<String> {
    let name = namespace.replace('-', "_");
    let mut admin = PgConnection::connect(server.as_str()).await?;
    for sql in [
        format!("create role {name} login password '{name}'"),
        format!("create database {name} owner {name}"),
    ] {
        admin.execute(AssertSqlSafe(sql)).await?;
    }
    admin.close().await?;
    Ok(postgres::url(&name))
}

async fn client() -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(&cluster().kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Objects are merged, other values are replaced.
fn merge(into: &mut Value, but: &Value) {
    match (into, but) {
        (Value::Object(into), Value::Object(but)) => {
            for (name, value) in but {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, but) => *into = but.clone(),
    }
}
