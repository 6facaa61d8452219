//! etcd, kube-apiserver and kubectl on loopback, without root and without the rest of a cluster.
//! Other programs of Kubernetes are added by [`build`] and [`launch`].

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::layout::NAMESPACE;
use crate::table::root;

/// Ten times what a loaded machine with two slow cores needs.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often a starting server is polled.
const POLL: Duration = Duration::from_millis(100);

/// How many kubectls create objects at the same time.
const KUBECTLS: usize = 4;

/// Makes the API server write a line to `audit.log` for every completed write.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                     - { level: Metadata, verbs: [create, update, patch, delete] }\n- { level: None }\n";

/// The administrator's token. Only this machine can reach the server, which ends with this program.
const TOKEN: &str = "rowlock-bench";

/// A running API server. Dropping it stops the server.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    kubectl: PathBuf,
    _processes: [Child; 2],
}

impl Cluster {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(tempfile::tempdir()?, &[]).await
    }

    /// Starts it in a folder, with more flags of the API server. Paths in them are relative to the folder.
    pub(crate) async fn start_with(folder: TempDir, flags: &[String]) -> Result<Self> {
        let programs = build(&["etcd", "kube-apiserver", "kubectl"]).await?;
        let Ok([etcd, apiserver, kubectl]) = <[PathBuf; 3]>::try_from(programs) else {
            bail!("tests/cluster/build.sh names three programs")
        };
        let [clients, peers, secure] = free_ports()?;
        secrets(folder.path(), secure)?;
        let etcd = start_etcd(&etcd, folder.path(), clients, peers)?;
        let apiserver = start_apiserver(&apiserver, folder.path(), clients, secure, flags)?;
        let cluster = Self { folder, kubectl, _processes: [etcd, apiserver] };
        let since = Instant::now();
        while cluster.kubectl(&["get", "--raw", "/readyz"], "").await.is_err() {
            ensure!(
                since.elapsed() < PATIENCE,
                "the API server is not ready; see {}",
                cluster.file("apiserver.log").display()
            );
            sleep(POLL).await;
        }
        Ok(cluster)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs kubectl with `input` on its standard input and returns its output.
    pub(crate) async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        answer(self.command(args), input.to_owned()).await
    }

    /// A kubectl command whose process ends when it is dropped.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.file("kubeconfig")).args(args).kill_on_drop(true);
        command
    }

    /// Creates objects of one kind, with several kubectls: each limits how many requests a second it sends.
    /// `subresource`: sets this part of existing objects instead.
    pub(crate) async fn create(&self, items: &[Value], subresource: Option<&str>) -> Result<()> {
        let subresource = subresource.map(|name| format!("--subresource={name}"));
        let args: Vec<&str> = match &subresource {
            Some(part) => vec!["apply", "--server-side", "--force-conflicts", part, "-o", "name", "-f", "-"],
            None => vec!["create", "-o", "name", "-f", "-"],
        };
        let mut running = JoinSet::new();
        for items in items.chunks(items.len().div_ceil(KUBECTLS).max(1)) {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
            running.spawn(answer(self.command(&args), list));
        }
        while let Some(answer) = running.join_next().await {
            answer??;
        }
        Ok(())
    }

    /// Number of writes to the namespaces of TaskQueues so far, without those of the Lease.
    pub(crate) fn writes(&self) -> Result<usize> {
        let log = fs::read_to_string(self.file("audit.log"))?;
        let ours = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = ours.filter(|entry| {
            let namespace = entry["objectRef"]["namespace"].as_str().unwrap_or_default();
            namespace.starts_with(NAMESPACE) && entry["objectRef"]["resource"] != "leases"
        });
        Ok(ours.count())
    }
}

/// Runs a command with `input` on its standard input and returns its output.
async fn answer(mut command: Command, input: String) -> Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("kubectl has no input")?;
    // It may write much before it has read everything.
    let feed = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    let output = child.wait_with_output().await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {error}", command.as_std());
    feed.await??;
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds missing programs, shows the progress, and returns their paths in this order.
pub(crate) async fn build(programs: &[&str]) -> Result<Vec<PathBuf>> {
    let mut build = Command::new(root().join("tests/cluster/build.sh"));
    build.args(programs).stderr(Stdio::inherit());
    let output = build.output().await.context("cannot run tests/cluster/build.sh")?;
    ensure!(output.status.success(), "tests/cluster/build.sh failed; the reason is above");
    Ok(String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect())
}

fn start_etcd(program: &Path, folder: &Path, clients: u16, peers: u16) -> Result<Child> {
    let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
    let args = [
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--log-level=warn".to_owned(),
    ];
    launch(program, folder, "etcd.log", &args, &[])
}

fn start_apiserver(program: &Path, folder: &Path, etcd: u16, secure: u16, flags: &[String]) -> Result<Child> {
    let args = [
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={secure}"),
        "--cert-dir=certificates".to_owned(),
        "--token-auth-file=tokens.csv".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://rowlock.bench".to_owned(),
        "--service-account-key-file=accounts.pub".to_owned(),
        "--service-account-signing-key-file=accounts.pem".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        // No controller makes the account that pods would need.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--audit-policy-file=audit.yaml".to_owned(),
        "--audit-log-path=audit.log".to_owned(),
    ];
    launch(program, folder, "apiserver.log", &[&args, flags].concat(), &[])
}

/// Starts a program in the folder. Dropping the result stops it.
pub(crate) fn launch(
    program: &Path,
    folder: &Path,
    log: &str,
    args: &[String],
    environment: &[(&str, &str)],
) -> Result<Child> {
    let log = fs::File::create(folder.join(log))?;
    let mut command = Command::new(program);
    command.envs(environment.iter().copied());
    command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

fn secrets(folder: &Path, port: u16) -> Result<()> {
    let accounts = rcgen::KeyPair::generate()?;
    fs::write(folder.join("accounts.pem"), accounts.serialize_pem())?;
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
    fs::write(folder.join("audit.yaml"), AUDIT)?;
    fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
    let certificate = folder.join("certificates/apiserver.crt");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "admin" } }],
        "users": [{ "name": "admin", "user": { "token": TOKEN } }],
        "clusters": [{ "name": "bench", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": certificate
        } }]
    });
    Ok(fs::write(folder.join("kubeconfig"), config.to_string())?)
}

/// Ports that are free at this moment.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All ports are bound before the first is released, so that they differ.
    let held = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}
