//! A namespace with a database, and an operator only for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rowlock_crds::labels;
use rowlock_operator::kubernetes::{Config, run};
use rowlock_tests::{TestDb, server as postgres};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::faulty_api_server::{Faults, Mode};
use crate::kubectl::{kubectl_with, namespace, ok};
use crate::server::server;

/// A busy machine with two slow cores needs a tenth of it.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

/// How often a test polls.
const POLL: Duration = Duration::from_millis(50);

/// A valid `TaskQueue` whose fields may be replaced, in the harness's database, with the queue of `TestDb`.
pub(crate) const EMAILS: &str = "
queueName: mail
database: { secretRef: { name: db } }
workers: { total: 40, perPod: 10, autoscaling: { scaleDownAfter: 1s } }
template: { spec: { containers: [{ name: handler, image: 'emails:1' }] } }
";

pub(crate) struct Harness {
    pub(crate) namespace: String,
    pub(crate) db: TestDb,
    client: Client,
}

/// A running operator. Dropping it kills it.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Harness {
    /// With the Secret, without a `TaskQueue` or an operator.
    pub(crate) async fn new(name: &str) -> Self {
        let db = TestDb::empty().await;
        let namespace = blocking(|| namespace(&format!("operator-{name}")));
        let harness = Self { namespace, db, client: client(None).await };
        harness.secret(&postgres::url(&harness.db.name));
        harness
    }

    /// Writes the Secret with this URL.
    pub(crate) fn secret(&self, url: &str) {
        self.secret_named("db", url);
    }

    pub(crate) fn secret_named(&self, name: &str, url: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "uri": url }
        });
        self.apply(&secret.to_string());
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) {
        self.try_apply(manifest).unwrap();
    }

    /// Applies a `TaskQueue` with this spec.
    pub(crate) fn task_queue(&self, name: &str, spec: &str) {
        self.try_task_queue(name, spec).unwrap();
    }

    /// The error, if it is refused.
    pub(crate) fn try_task_queue(&self, name: &str, spec: &str) -> Result<(), String> {
        let spec: Value = serde_yaml::from_str(spec).unwrap();
        let manifest = json!({
            "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue", "metadata": { "name": name },
            "spec": spec
        });
        self.try_apply(&manifest.to_string())
    }

    pub(crate) fn try_apply(&self, manifest: &str) -> Result<(), String> {
        let flags = ["apply", "--server-side", "--force-conflicts", "-n", &self.namespace, "-f", "-"];
        let output = blocking(|| kubectl_with(&flags, manifest));
        if output.succeeded { Ok(()) } else { Err(output.err) }
    }

    /// The error for an object, which is not created.
    pub(crate) fn refusal(&self, manifest: &Value) -> Option<String> {
        let flags = ["create", "--dry-run=server", "-n", &self.namespace, "-f", "-"];
        let output = blocking(|| kubectl_with(&flags, &manifest.to_string()));
        (!output.succeeded).then_some(output.err)
    }

    /// Changes the spec of `emails` by a merge patch.
    pub(crate) fn change(&self, spec: &Value) {
        self.kubectl(&["patch", "tq", "emails", "--type=merge", "-p", &json!({ "spec": spec }).to_string()]);
    }

    /// Runs kubectl in the namespace.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let args = [args, &["-n", &self.namespace]].concat();
        blocking(|| ok(&args, ""))
    }

    /// An object, or null. Not by kubectl, which costs a tenth of a second each time.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let (group, version, kind, plural) = match kind {
            "tq" => ("rowlock.dev", "v1alpha1", "TaskQueue", "taskqueues"),
            "deployment" => ("apps", "v1", "Deployment", "deployments"),
            "pdb" => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            "lease" => ("coordination.k8s.io", "v1", "Lease", "leases"),
            other => panic!("which kind is {other}?"),
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let found = blocking(|| Handle::current().block_on(api.get_opt(name)));
        json!(found.unwrap())
    }

    pub(crate) fn deployment(&self) -> Value {
        self.get("deployment", "emails")
    }

    /// Status and reason of a condition, and its message.
    pub(crate) fn condition(&self, name: &str, type_: &str) -> (String, String) {
        let object = self.get("tq", name);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|one| one["type"] == type_).cloned().unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (format!("{} {}", text("status"), text("reason")), text("message"))
    }

    /// Waits until a condition of `emails` has this status and reason; returns its message.
    pub(crate) async fn until(&self, type_: &str, expected: &str) -> String {
        self.until_of("emails", type_, expected).await
    }

    /// Waits until a condition has this status and reason; returns its message.
    pub(crate) async fn until_of(&self, name: &str, type_: &str, expected: &str) -> String {
        let what = format!("{type_} of {name} is {expected}");
        let output = until(&what, || {
            let (output, message) = self.condition(name, type_);
            if output == expected { Ok(message) } else { Err(format!("{output}: {message}")) }
        });
        output.await
    }

    /// Waits until an event with this reason exists; returns all of them.
    pub(crate) async fn until_event(&self, reason: &str) -> String {
        until(&format!("there is an event {reason}"), || {
            let events = self.kubectl(&["get", "events"]);
            if events.contains(reason) { Ok(events.clone()) } else { Err(events) }
        })
        .await
    }

    /// Like `kubectl scale deployment/emails`, without starting kubectl.
    pub(crate) async fn scale(&self, replicas: u32) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        api.patch_scale("emails", &params, &patch).await.unwrap();
    }

    /// Waits until the Deployment of `emails` has this many replicas.
    pub(crate) async fn until_replicas(&self, expected: u32) {
        self.until_replicas_of("emails", expected).await;
    }

    pub(crate) async fn until_replicas_of(&self, name: &str, expected: u32) {
        until(&format!("{expected} replicas"), || {
            let deployment = self.get("deployment", name);
            let replicas = &deployment["spec"]["replicas"];
            if *replicas == expected { Ok(()) } else { Err(replicas.to_string()) }
        })
        .await;
    }

    /// Waits until the pods of `emails` have this grace period in seconds: 5 more than `spec.timeout`.
    pub(crate) async fn until_grace(&self, expected: u32) {
        until(&format!("a grace of {expected} s"), || {
            let deployment = self.deployment();
            let grace = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
            if *grace == expected { Ok(()) } else { Err(grace.to_string()) }
        })
        .await;
    }

    /// An operator for this namespace, with an administrator's permissions.
    pub(crate) async fn operator(&self) -> Running {
        Self::run(client(None).await, self.config())
    }

    /// An operator whose API server has faults.
    pub(crate) async fn operator_with_faults(&self, mode: Mode) -> (Faults, Running) {
        let faults = Faults::new(mode);
        let client = faults.between(client(None).await);
        (faults, Self::run(client, self.config()))
    }

    /// The same, with its HTTP pages on loopback; returns the address.
    pub(crate) async fn operator_with_faults_and_pages(&self, mode: Mode) -> (Faults, Running, SocketAddr) {
        let (faults, listen) = (Faults::new(mode), free_address());
        let client = faults.between(client(None).await);
        (faults, Self::run(client, Config { listen, ..self.config() }), listen)
    }

    /// The same, with other settings.
    pub(crate) async fn operator_with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.config();
        change(&mut config);
        Self::run(client(None).await, config)
    }

    /// An operator with the user's permissions, for all namespaces, of a class that only this namespace uses.
    pub(crate) async fn everywhere_as(&self, user: &str, cluster_role: &str) -> (Running, SocketAddr) {
        let (_, operator, listen) = self.everywhere_with_faults(user, cluster_role, Mode::Calm).await;
        (operator, listen)
    }

    /// The same, with an API server that has faults.
    pub(crate) async fn everywhere_with_faults(
        &self,
        user: &str,
        cluster_role: &str,
        mode: Mode,
    ) -> (Faults, Running, SocketAddr) {
        self.kubectl(&["label", "tq", "emails", &format!("{}={}", labels::CLASS, self.namespace)]);
        let (faults, listen) = (Faults::new(mode), free_address());
        let (class, cluster_role) = (Some(self.namespace.clone()), cluster_role.to_owned());
        let config = Config { namespace: None, class, cluster_role, listen, ..self.config() };
        (faults.clone(), Self::run(faults.between(client(Some(user)).await), config), listen)
    }

    /// An operator with the user's permissions, for this namespace, with other settings.
    pub(crate) async fn operator_as(&self, user: &str, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.config();
        change(&mut config);
        Self::run(client(Some(user)).await, config)
    }

    fn run(client: Client, config: Config) -> Running {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(config, client, stop.clone()));
        Running { stop, task }
    }

    /// The same, with its HTTP pages on loopback; returns the address.
    pub(crate) async fn operator_with_pages(&self) -> (Running, SocketAddr) {
        let listen = free_address();
        (Self::run(client(None).await, Config { listen, ..self.config() }), listen)
    }

    fn config(&self) -> Config {
        config(&self.namespace)
    }
}

/// The configuration of an operator for one namespace.
pub(crate) fn config(namespace: &str) -> Config {
    Config {
        namespace: Some(namespace.to_owned()),
        class: None,
        worker_image: "rowlock-worker:test".into(),
        worker_pull_policy: None,
        worker_pull_secrets: Vec::new(),
        worker_resources: ResourceRequirements::default(),
        worker_labels: BTreeMap::new(),
        worker_tracing: BTreeMap::new(),
        // The tests' servers run there.
        allowed_database_hosts: ["127.0.0.1", "::1", "localhost"].map(str::to_owned).into(),
        refused_database_hosts: Vec::new(),
        api_server: None,
        tenants: Arc::default(),
        rollouts_at_once: 5,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        lease_namespace: namespace.to_owned(),
        lease: "rowlock-operator".into(),
        name: None,
        service_account: "rowlock-operator".into(),
        cluster_role: "rowlock-operator-namespace".into(),
        log_format: "text".into(),
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).unwrap()
}

/// A client of this user; without one, of an administrator.
async fn client(user: Option<&str>) -> Client {
    let kubeconfig = Kubeconfig::read_from(&server().kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    config.auth_info.impersonate = user.map(str::to_owned);
    Client::try_from(config).unwrap()
}

impl Running {
    /// Stops it, as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until something holds and returns its value.
///
/// # Panics
/// If it does not within [`TIMEOUT`].
pub(crate) async fn until<T>(what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    until_async(what, || std::future::ready(holds())).await
}

pub(crate) async fn until_async<T, F>(what: &str, mut holds: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let since = Instant::now();
    loop {
        match holds().await {
            Ok(answer) => return answer,
            Err(instead) => {
                assert!(
                    since.elapsed() < TIMEOUT,
                    "timed out waiting until {what}; the last state: {instead}"
                );
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits for kubectl while the runtime's other threads continue.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

/// The whole answer to an HTTP request.
pub(crate) fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// An HTTP page of an operator, or the error.
pub(crate) fn page(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = ask(address, &request).unwrap_or_else(|error| error.to_string());
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains("transfer-encoding: chunked") => {
            format!("{head}\r\n\r\n{}", without_chunks(body))
        }
        _ => answer,
    }
}

fn without_chunks(mut body: &str) -> String {
    let mut joined = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        joined.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    joined
}
