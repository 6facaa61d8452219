//! Worker processes, each with its handler; each one that ends is restarted.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::Write,
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use rowlock_tests::history::Event;
use tokio::{process::Command, task::JoinHandle, time::sleep};

use crate::harness::QUEUE;

const INSTANCES: usize = 3;
/// More than their share of the total, so that there is something to allocate.
const SLOTS: &str = "12";
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// The exit code of a fenced worker.
const FENCED: i32 = 3;
/// The worker's log line if it ended without leaving.
const NOT_LEFT: &str = "the leases will expire";
/// A drain ends when all running tasks have finished; the slowest handler takes some seconds.
const END_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Slot {
    handler: Option<u32>,
    worker: Option<(u32, String)>,
}

pub(crate) struct Fleet {
    slots: Vec<Mutex<Slot>>,
    ending: AtomicBool,
    names: AtomicU32,
    journal: Journal,
    folder: PathBuf,
    strange: Mutex<Vec<String>>,
    killed: Mutex<HashSet<u32>>,
    keepers: Mutex<Vec<JoinHandle<Result<()>>>>,
    setup: Setup,
}

struct Setup {
    url: String,
    worker: PathBuf,
    calm: bool,
    seed: u64,
    ports: Vec<u16>,
}

/// Appends events, each by one write.
pub(crate) struct Journal(Mutex<File>);

impl Journal {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self(Mutex::new(OpenOptions::new().append(true).create(true).open(path)?)))
    }

    pub(crate) fn note(&self, event: &Event) -> Result<()> {
        let line = serde_json::to_string(event)? + "\n";
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())?)
    }
}

/// Nanoseconds of the clock that all of one machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn send(pid: u32, signal: Signal) {
    // A process that has ended in the meantime needs no signal.
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
    }
}

/// Waits until every thread of a child process has stopped. The end of the child is left to its keeper.
pub(crate) async fn stopped(pid: u32) -> Result<()> {
    let child = Id::Pid(Pid::from_raw(i32::try_from(pid)?));
    let wait = move || waitid(child, WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT);
    tokio::task::spawn_blocking(wait).await??;
    Ok(())
}

/// Cargo builds binaries of other packages only when asked.
fn worker_binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().and_then(Path::parent).context("no target directory")?.join("rowlock-worker");
    ensure!(path.exists(), "{} is missing: cargo build -p rowlock-worker (make does it)", path.display());
    Ok(path)
}

impl Fleet {
    pub(crate) fn start(url: &str, folder: &Path, calm: bool, seed: u64) -> Result<Arc<Self>> {
        // All at once, so that no port is chosen twice.
        let free: Vec<_> =
            (0..INSTANCES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports: Vec<u16> =
            free.iter().map(|port| Ok(port.local_addr()?.port())).collect::<std::io::Result<_>>()?;
        drop(free);
        let fleet = Arc::new(Self {
            slots: (0..INSTANCES).map(|_| Mutex::default()).collect(),
            ending: AtomicBool::new(false),
            names: AtomicU32::new(0),
            journal: Journal::open(&folder.join("fleet.jsonl"))?,
            folder: folder.to_owned(),
            strange: Mutex::default(),
            killed: Mutex::default(),
            keepers: Mutex::default(),
            setup: Setup { url: url.into(), worker: worker_binary()?, calm, seed, ports },
        });
        let mut keepers = Vec::new();
        for slot in 0..INSTANCES {
            keepers.push(tokio::spawn(Arc::clone(&fleet).keep_handler(slot)));
            keepers.push(tokio::spawn(Arc::clone(&fleet).keep_worker(slot)));
        }
        *fleet.keepers.lock().unwrap_or_else(PoisonError::into_inner) = keepers;
        Ok(fleet)
    }

    pub(crate) fn instances(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn note(&self, event: &Event) -> Result<()> {
        self.journal.note(event)
    }

    pub(crate) fn handler(&self, slot: usize) -> Option<u32> {
        self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner).handler
    }

    pub(crate) fn worker(&self, slot: usize) -> Option<(u32, String)> {
        self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner).worker.clone()
    }

    /// Kills an expected process, so that its end is no violation.
    pub(crate) fn kill(&self, pid: u32) {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        send(pid, Signal::SIGKILL);
    }

    /// Exits of workers that neither a fault nor a lost lease explains.
    pub(crate) fn unexplained_exits(&self) -> Vec<String> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// A process that ends with the thread that started it, even if this test crashes.
    fn command(program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn keep_handler(self: Arc<Self>, slot: usize) -> Result<()> {
        let script = rowlock_tests::checkout().join("tests/handlers/chaos.py");
        let mut life = 0;
        while !self.is_ending() {
            life += 1;
            let mut command = Self::command(Path::new("python3"));
            command.arg(&script).arg("--port").arg(self.setup.ports[slot].to_string());
            command.arg("--log").arg(self.folder.join(format!("handler-{slot}.jsonl")));
            command.arg("--seed").arg(format!("{}", self.setup.seed + 1000 * life + slot as u64));
            if self.setup.calm {
                command.arg("--calm");
            }
            let mut child = command.spawn().context("cannot start python3 (through setpriv)")?;
            let pid = child.id().unwrap_or_default();
            self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner).handler = Some(pid);
            child.wait().await?;
            self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner).handler = None;
            self.note(&Event::HandlerEnded { handler: pid, at: now() })?;
            sleep(RESTART_PAUSE).await;
        }
        Ok(())
    }

    async fn keep_worker(self: Arc<Self>, slot: usize) -> Result<()> {
        while !self.is_ending() {
            let name = format!("{slot}-{}", self.names.fetch_add(1, Ordering::SeqCst));
            let log = self.folder.join(format!("worker-{name}.log"));
            let out = File::create(&log)?;
            let mut command = Self::command(&self.setup.worker);
            command.env("ROWLOCK_DATABASE_URL", &self.setup.url);
            command.args(["--queue", QUEUE, "--name", &name, "--slots", SLOTS]);
            command.args(["--listen", "127.0.0.1:0", "--log-format", "text"]);
            command.arg("--handler-url").arg(format!("http://127.0.0.1:{}/tasks", self.setup.ports[slot]));
            command.stdout(out.try_clone()?).stderr(out);
            let mut child = command.spawn().context("cannot start rowlock-worker")?;
            let pid = child.id().unwrap_or_default();
            self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner).worker =
                Some((pid, name.clone()));
            let status = child.wait().await?;
            self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner).worker = None;
            self.check_exit(pid, &name, &log, status)?;
            sleep(RESTART_PAUSE).await;
        }
        Ok(())
    }

    /// An instance that was killed, or ended without leaving, must be rescued; no other may be. One that
    /// fenced itself must not: the database answered nobody at that time, and the instance releases its tasks
    /// once it answers again.
    fn check_exit(&self, pid: u32, name: &str, log: &Path, status: ExitStatus) -> Result<()> {
        // It was asked to drain before it had begun, and so before it handled signals.
        if status.signal() == Some(Signal::SIGTERM as i32) && std::fs::metadata(log)?.len() == 0 {
            return Ok(());
        }
        let killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
        let ended = matches!(status.code(), Some(0 | FENCED));
        if !killed && !ended {
            let strange = format!("{name}: {status}");
            self.strange.lock().unwrap_or_else(PoisonError::into_inner).push(strange);
        }
        if ended && !std::fs::read_to_string(log)?.contains(NOT_LEFT) {
            return Ok(());
        }
        self.note(&Event::InstanceFailed { name: name.into() })
    }

    /// Drains every worker, then ends the handlers.
    pub(crate) async fn end(&self) -> Result<()> {
        self.ending.store(true, Ordering::SeqCst);
        let drained = async {
            while (0..self.instances()).any(|slot| self.worker(slot).is_some()) {
                for (pid, _) in (0..self.instances()).filter_map(|slot| self.worker(slot)) {
                    send(pid, Signal::SIGTERM);
                }
                // A second signal would abort: wait for the end of this drain.
                for _ in 0..END_TIMEOUT.as_millis() / 100 {
                    if (0..self.instances()).all(|slot| self.worker(slot).is_none()) {
                        return;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        };
        tokio::time::timeout(END_TIMEOUT * 2, drained).await.context("the workers do not drain")?;
        for pid in (0..self.instances()).filter_map(|slot| self.handler(slot)) {
            self.kill(pid);
        }
        let keepers = std::mem::take(&mut *self.keepers.lock().unwrap_or_else(PoisonError::into_inner));
        for keeper in keepers {
            keeper.await??;
        }
        Ok(())
    }
}
