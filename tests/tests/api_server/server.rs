//! One API server per test process, with the chart of the CRD applied.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use rowlock_local::process::{Launch, Process, Stop};
use rowlock_tests::checkout;
use tokio::sync::Mutex;

/// Start of the name of the server's folder; the process id follows.
const FOLDER: &str = "rowlock-api-server-";

/// A busy machine with two slow cores needs a tenth of it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How often a starting server is polled.
const POLL: Duration = Duration::from_millis(50);

/// Between choosing a free port and listening on it, another process may take it.
const TRIES: u32 = 3;

/// A running API server.
pub(crate) struct Server {
    pub(crate) kubectl: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) folder: PathBuf,
    /// The address of etcd.
    pub(crate) etcd: u16,
}

struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
    kubectl: PathBuf,
}

static RUNNING: OnceLock<Server> = OnceLock::new();

/// The server with the definition of `TaskQueue`, started by the first test that needs it.
pub(crate) fn server() -> &'static Server {
    RUNNING.get_or_init(|| {
        let server = start().unwrap_or_else(|error| panic!("{error:#}"));
        crate::kubectl::install(&server);
        server
    })
}

/// Held by tests that change the definition or need it unchanged.
pub(crate) static DEFINITION: Mutex<()> = Mutex::const_new(());

/// The chart's templates: plain YAML, so that no Helm is needed.
pub(crate) fn chart() -> PathBuf {
    checkout().join("charts/rowlock-crds/templates")
}

fn start() -> Result<Server> {
    let programs = programs()?;
    clean()?;
    let (mut tried, since) = (0, Instant::now());
    loop {
        tried += 1;
        let folder = std::env::temp_dir().join(format!("{FOLDER}{}-{tried}", std::process::id()));
        fs::create_dir(&folder)?;
        match start_in(&programs, &folder) {
            Ok(server) => return Ok(server),
            Err(error) if tried == TRIES || since.elapsed() > TIMEOUT => return Err(error),
            Err(_) => (),
        }
    }
}

/// Builds missing programs and reports it.
fn programs() -> Result<Programs> {
    let mut build = Command::new(checkout().join("tests/cluster/build.sh"));
    build.args(["etcd", "kube-apiserver", "kubectl"]).stderr(Stdio::inherit());
    let output = build.output().context("cannot run tests/cluster/build.sh")?;
    ensure!(output.status.success(), "tests/cluster/build.sh failed; the reason is above");
    let paths: Vec<PathBuf> = String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect();
    let Ok([etcd, apiserver, kubectl]) = <[PathBuf; 3]>::try_from(paths) else {
        bail!("tests/cluster/build.sh names three programs")
    };
    Ok(Programs { etcd, apiserver, kubectl })
}

fn start_in(programs: &Programs, folder: &Path) -> Result<Server> {
    let [clients, peers, secure] = free_ports()?;
    let etcd = Process::start(&etcd(&programs.etcd, folder, clients, peers))?;
    let token = secrets(folder)?;
    let mut apiserver = Process::start(&apiserver(&programs.apiserver, folder, clients, secure))?;
    let kubeconfig = kubeconfig(folder, secure, &token)?;
    let server =
        Server { kubectl: programs.kubectl.clone(), kubeconfig, folder: folder.to_owned(), etcd: clients };
    let since = Instant::now();
    while let Err(answer) = crate::kubectl::ready(&server) {
        let log = folder.join("apiserver.log");
        ensure!(since.elapsed() < TIMEOUT, "the API server is not ready: {answer} (log: {})", log.display());
        if apiserver.poll()?.is_some() {
            let text = fs::read_to_string(&log)?;
            let last = text.lines().last().unwrap_or_default();
            bail!("the API server ended: {last} (log: {})", log.display());
        }
        std::thread::sleep(POLL);
    }
    // Their guards end them when this process ends.
    std::mem::forget((etcd, apiserver));
    Ok(server)
}

/// Every write that was answered is a line of `audit.log`.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                     - { level: Metadata, verbs: [create, update, patch, delete] }\n- { level: None }\n";

/// Its large data is removed with it; the logs stay until the next run.
const THEN_REMOVE: &str = "trap : TERM; \"$@\"; rm -rf etcd";

fn etcd(program: &Path, folder: &Path, clients: u16, peers: u16) -> Launch {
    let clients = format!("http://127.0.0.1:{clients}");
    let peers = format!("http://127.0.0.1:{peers}");
    let args = [
        "-c".to_owned(),
        THEN_REMOVE.to_owned(),
        "sh".to_owned(),
        program.display().to_string(),
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // The data need not survive a crash.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    launch(Path::new("/bin/sh"), folder, "etcd.log", &args, Signal::SIGTERM)
}

fn apiserver(program: &Path, folder: &Path, etcd: u16, secure: u16) -> Launch {
    let args = [
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Otherwise it searches for a network interface, and there may be none.
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={secure}"),
        // It writes a self-signed certificate there.
        "--cert-dir=certificates".to_owned(),
        "--token-auth-file=tokens.csv".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // The Service that every cluster has.
        "--allow-privileged=true".to_owned(),
        "--service-account-issuer=https://rowlock.test".to_owned(),
        "--service-account-key-file=accounts.pub".to_owned(),
        "--service-account-signing-key-file=accounts.pem".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--audit-policy-file=audit.yaml".to_owned(),
        "--audit-log-path=audit.log".to_owned(),
    ];
    // Otherwise it would drain for a minute.
    launch(program, folder, "apiserver.log", &args, Signal::SIGKILL)
}

/// A key for service accounts, and an administrator with a token of this run; the token.
fn secrets(folder: &Path) -> Result<String> {
    let accounts = rcgen::KeyPair::generate()?;
    fs::write(folder.join("accounts.pem"), accounts.serialize_pem())?;
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
    let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(32).collect();
    fs::write(folder.join("audit.yaml"), AUDIT)?;
    fs::write(folder.join("tokens.csv"), format!("{token},admin,admin,system:masters\n"))?;
    Ok(token)
}

fn kubeconfig(folder: &Path, port: u16, token: &str) -> Result<PathBuf> {
    let path = folder.join("kubeconfig");
    let certificate = folder.join("certificates/apiserver.crt");
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "admin" } }],
        "users": [{ "name": "admin", "user": { "token": token } }],
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": certificate
        } }]
    });
    fs::write(&path, text.to_string())?;
    Ok(path)
}

fn launch(program: &Path, folder: &Path, log: &str, args: &[String], stop: Signal) -> Launch {
    Launch {
        program: program.to_owned(),
        args: args.iter().map(Into::into).collect(),
        env: Vec::new(),
        without: Vec::new(),
        inherit_env: true,
        folder: Some(folder.to_owned()),
        user: None,
        log: Some(folder.join(log)),
        stop: Stop { signals: vec![stop], patience: Duration::from_secs(5), linger: Duration::ZERO },
        guard: Some(env!("CARGO_BIN_EXE_rowlock-tests-guard").into()),
        records: None,
    }
}

fn free_ports() -> Result<[u16; 3]> {
    // All are held before the first is released, so that they differ.
    let held = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// Removes the folders of processes that ended.
fn clean() -> Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Folders of other users stay.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}
