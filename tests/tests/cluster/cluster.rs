//! One cluster per test process, with the images loaded and both charts installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::Signal;
use rowlock_local::process::{Launch, Process, Stop};
use rowlock_tests::checkout;

use crate::kubectl;
use crate::pod_network::PodNetwork;

/// The operator's namespace.
pub(crate) const OPERATOR: &str = "rowlock";

/// A cluster on this machine starts in 8 s; others may be starting, too.
const TIMEOUT: Duration = Duration::from_mins(3);

const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    pub(crate) kubectl: PathBuf,
    pub(crate) helm: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) pod_network: PodNetwork,
    /// The prefix of image names.
    pub(crate) images: String,
    /// For a cluster of this process: its name and the folder of its state.
    own: Option<Own>,
}

pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) state: PathBuf,
}

impl Own {
    /// Ends the cluster before this process ends.
    pub(crate) fn down(&self) -> Result<()> {
        script("cluster.sh", &["down", &self.name]).map(drop)
    }

    /// Runs a command inside the cluster's network namespace.
    pub(crate) fn enter(&self, command: &[&str]) -> Result<String> {
        script("cluster.sh", &[&["enter", self.name.as_str()], command].concat())
    }

    /// Kills the processes of a container, as a crash does.
    pub(crate) fn kill(&self, container: &str) -> Result<()> {
        let folder = self.cgroup(container).with_context(|| format!("no cgroup of {container}"))?;
        for process in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
            // A process may end in the meantime.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.parse()?), Signal::SIGKILL);
        }
        Ok(())
    }

    /// As machine.sh expects it: restarted as soon as possible.
    pub(crate) fn stop_api_server(&self) -> Result<()> {
        fs::write(self.state.join("apiserver.off"), "")?;
        let process = fs::read_to_string(self.state.join("apiserver.pid"))?;
        self.enter(&["kill", "-KILL", process.trim()])?;
        Ok(())
    }

    pub(crate) fn start_api_server(&self) -> Result<()> {
        Ok(fs::remove_file(self.state.join("apiserver.off"))?)
    }

    fn cgroup(&self, container: &str) -> Option<PathBuf> {
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(PathBuf::from);
        let root =
            roots.into_iter().find(|root| root.join(format!("rowlock-{}-node1", self.name)).exists())?;
        [1, 2]
            .iter()
            .find_map(|node| find(&root.join(format!("rowlock-{}-node{node}", self.name)), container))
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(folder).ok()?.flatten().filter(|entry| entry.path().is_dir());
    let mut folders = folders.map(|entry| entry.path());
    folders.find_map(|path| if path.ends_with(name) { Some(path) } else { find(&path, name) })
}

impl Cluster {
    /// The nodes of a given cluster are unknown: tests that need them are skipped.
    pub(crate) fn own(&self) -> Option<&Own> {
        if self.own.is_none() {
            eprintln!("skipped: it needs its own cluster");
        }
        self.own.as_ref()
    }
}

/// The id of a running container of a pod.
pub(crate) fn container(pod: &Pod, name: &str) -> Result<String> {
    let status = pod.status.as_ref().context("a status")?;
    let all = [&status.container_statuses, &status.init_container_statuses];
    let found = all.into_iter().flatten().flatten().find(|one| one.name == name);
    let id = found.and_then(|one| one.container_id.clone()).context("the container runs")?;
    Ok(id.trim_start_matches("containerd://").to_owned())
}

static RUNNING: OnceLock<Result<Cluster, String>> = OnceLock::new();
static IMAGES: OnceLock<Result<Vec<String>, String>> = OnceLock::new();

/// The cluster, started by the first test that needs it.
///
/// # Panics
/// If there is none, with the same message in every test.
pub(crate) fn cluster() -> &'static Cluster {
    let running = RUNNING.get_or_init(|| set_up().map_err(|error| format!("{error:#}")));
    running.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

fn set_up() -> Result<Cluster> {
    let kind = std::env::var("ROWLOCK_TEST_CLUSTER").unwrap_or_else(|_| "test".to_owned());
    let cluster = given()?.map_or_else(|| bare(&kind), Ok)?;
    install(&cluster)?;
    Ok(cluster)
}

/// A cluster that exists.
fn given() -> Result<Option<Cluster>> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // Both variables are needed, since a developer may have a KUBECONFIG that is not meant for tests.
    if let (Some(kubeconfig), Some(images)) = (given("KUBECONFIG"), given("IMAGE_PREFIX")) {
        let host = given("HOST").context("HOST must be an address of this machine that pods can reach")?;
        let pod_network = PodNetwork::Address(host.parse().context("HOST is no address")?);
        let [kubectl, helm] = programs(["kubectl", "helm"])?;
        return Ok(Some(Cluster {
            kubectl,
            helm,
            kubeconfig: kubeconfig.into(),
            pod_network,
            images,
            own: None,
        }));
    }
    Ok(None)
}

/// A cluster of this process that has only the images.
pub(crate) fn bare(kind: &str) -> Result<Cluster> {
    let [kubectl, helm] = programs(["kubectl", "helm"])?;
    let own = start(kind)?;
    let runner: String = fs::read_to_string(own.state.join("unshare"))?;
    let process = runner.split(' ').next().context("no init")?.parse()?;
    let kubeconfig = own.state.join("kubeconfig");
    let images = "localhost/".to_owned();
    Ok(Cluster {
        kubectl,
        helm,
        kubeconfig,
        pod_network: PodNetwork::Inside(process),
        images,
        own: Some(own),
    })
}

/// Builds missing programs and reports it.
fn programs<const N: usize>(names: [&str; N]) -> Result<[PathBuf; N]> {
    let message = script("build.sh", &names)?;
    let paths: Vec<PathBuf> = message.lines().map(PathBuf::from).collect();
    paths.try_into().ok().context("tests/cluster/build.sh names each program")
}

/// Runs a script of tests/cluster and returns its output.
pub(crate) fn script(name: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(checkout().join("tests/cluster").join(name));
    let output = command.args(args).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "tests/cluster/{name} failed; the reason is above");
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts a cluster and loads the images of this checkout's programs.
fn start(kind: &str) -> Result<Own> {
    let name = format!("{kind}-{}", std::process::id());
    let state = clusters()?.join(&name);
    let folder = std::env::temp_dir().join(format!("rowlock-cluster-{kind}"));
    fs::create_dir_all(&folder)?;
    let mut process = Process::start(&launch(&name, &folder))?;
    let images = IMAGES.get_or_init(|| images().map_err(|error| format!("{error:#}")));
    let images = images.as_ref().map_err(anyhow::Error::msg)?;
    let since = Instant::now();
    while !state.join("ready").exists() {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        ensure!(process.poll()?.is_none() && since.elapsed() < TIMEOUT, "no cluster: {log}");
        std::thread::sleep(POLL);
    }
    let mut load = vec!["load", name.as_str()];
    load.extend(images.iter().map(String::as_str));
    script("cluster.sh", &load)?;
    // Its guard ends it when this process ends.
    std::mem::forget(process);
    Ok(Own { name, state })
}

fn clusters() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache.or(home).context("no home")?.join("rowlock/clusters"))
}

/// The image archives, made from the programs in this test's folder.
fn images() -> Result<Vec<String>> {
    let test = std::env::current_exe()?;
    let programs = test.parent().and_then(Path::parent).context("a test lies in target/*/deps")?;
    for program in ["rowlock-worker", "rowlock-operator"] {
        let path = programs.join(program);
        ensure!(path.exists(), "{} is missing: make cluster-test builds it", path.display());
    }
    let folder = programs.parent().context("a target folder")?.join("images");
    let (programs, to) = (programs.display().to_string(), folder.display().to_string());
    let message = script("images.sh", &[&programs, &to])?;
    Ok(message.lines().map(|name| folder.join(name).display().to_string()).collect())
}

fn launch(name: &str, folder: &Path) -> Launch {
    Launch {
        program: checkout().join("tests/cluster/cluster.sh"),
        args: ["run", name].map(Into::into).into(),
        // Logs of the last run, to explain a failure.
        env: vec![("KEEP_LOGS".into(), folder.join("logs").into())],
        without: vec!["KUBECONFIG"],
        inherit_env: true,
        folder: None,
        user: None,
        log: Some(folder.join("log")),
        stop: Stop {
            signals: vec![Signal::SIGTERM],
            patience: Duration::from_secs(30),
            linger: Duration::ZERO,
        },
        guard: Some(env!("CARGO_BIN_EXE_rowlock-tests-guard").into()),
        records: None,
    }
}

/// As docs/kubernetes.md says.
pub(crate) fn install(cluster: &Cluster) -> Result<()> {
    let chart = |name: &str| checkout().join("charts").join(name).display().to_string();
    let (crds, operator) = (chart("rowlock-crds"), chart("rowlock"));
    let (image, worker) = (
        format!("image.repository={}rowlock-operator,image.tag=test", cluster.images),
        format!("workerImage.repository={}rowlock-worker,workerImage.tag=test", cluster.images),
    );
    for args in [
        &["upgrade", "--install", "rowlock-crds", &crds, "--wait"] as &[&str],
        &[
            "upgrade",
            "--install",
            "rowlock",
            &operator,
            "-n",
            OPERATOR,
            "--create-namespace",
            "--set",
            &image,
            "--set",
            &worker,
            "--wait",
            "--timeout",
            "2m",
        ],
    ] {
        if let Err(error) = kubectl::run(&cluster.helm, &cluster.kubeconfig, args, "") {
            let pods = ["get", "pods,events", "-n", OPERATOR];
            let seen = kubectl::run(&cluster.kubectl, &cluster.kubeconfig, &pods, "").unwrap_or_default();
            bail!("helm {args:?}: {error}\n{seen}");
        }
    }
    Ok(())
}
