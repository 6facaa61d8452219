//! Child processes that do not outlive this program: each runs under a guard that stops it when this program
//! is gone.
//!
//! The guard is a second process that holds the reading end of a pipe. When this program ends, even by
//! SIGKILL, the other end closes, and the guard ends its child within seconds. A record on disk has the
//! process id and start time of each guarded process. If its guard is killed, too, the next run ends the
//! process.

mod guard;
mod record;

pub use guard::{GuardArgs, guard};
pub(crate) use record::end_recorded;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a process is polled while we wait for its end.
const STOP_POLL: Duration = Duration::from_millis(20);

/// How much longer than the patience of the guard itself we wait before we kill the guard.
const GUARD_MARGIN: Duration = Duration::from_secs(5);

/// How to stop a process: signals, one after the other, and at last SIGKILL.
#[derive(Debug, Clone)]
pub struct Stop {
    /// The signals before SIGKILL, mildest first.
    pub signals: Vec<Signal>,
    /// How long the process may take to end after each signal.
    pub patience: Duration,
    /// How long its guard waits when this program is gone. Processes that stop earlier may still need this
    /// one to release their tasks.
    pub linger: Duration,
}

/// What to start and how to stop it.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables to set.
    pub env: Vec<(OsString, OsString)>,
    /// Environment variables that it does not inherit.
    pub without: Vec<&'static str>,
    /// Whether it inherits our environment (a user's handler) or gets only `env` (PostgreSQL).
    pub inherit_env: bool,
    /// Its working directory; default: ours.
    pub folder: Option<PathBuf>,
    /// User and group to run as; only root can change them.
    pub user: Option<(u32, u32)>,
    /// File to append its output to; without one the output goes to our standard error.
    pub log: Option<PathBuf>,
    /// How to stop it.
    pub stop: Stop,
    /// The executable with the subcommand `guard`. Without it the process ends only when its [`Process`] is
    /// dropped.
    pub guard: Option<PathBuf>,
    /// Folder for records of running processes; needs a guard.
    pub records: Option<PathBuf>,
}

/// A started process. Dropping it ends the process: within seconds under a guard, at once without one.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lifeline: Option<ChildStdin>,
    stop: Stop,
    guarded: bool,
    records: Option<PathBuf>,
    stopping: Option<Stopping>,
    exited: Option<ExitStatus>,
}

#[derive(Debug)]
struct Stopping {
    sent: usize,
    since: Instant,
}

impl Process {
    /// Starts the program, under its guard if it has one.
    pub fn start(launch: &Launch) -> io::Result<Self> {
        let mut command = if let Some(guard) = &launch.guard {
            let mut command = Command::new(guard);
            command.args(guard::arguments(launch));
            command.stdin(Stdio::piped());
            command
        } else {
            let mut command = Command::new(&launch.program);
            command.args(&launch.args).stdin(Stdio::null());
            if let Some((uid, gid)) = launch.user {
                command.uid(uid).gid(gid);
            }
            command
        };
        if !launch.inherit_env {
            command.env_clear();
        }
        for name in &launch.without {
            command.env_remove(name);
        }
        command.envs(launch.env.iter().map(|(key, value)| (key, value)));
        if let Some(folder) = &launch.folder {
            command.current_dir(folder);
        }
        let (out, err) = sinks(launch)?;
        // Ctrl-C does not reach a process in its own process group: we stop processes in the right order.
        let mut child = command.stdout(out).stderr(err).process_group(0).spawn()?;
        let lifeline = child.stdin.take();
        let guarded = launch.guard.is_some();
        Ok(Self {
            child,
            lifeline,
            stop: launch.stop.clone(),
            guarded,
            records: launch.records.clone(),
            stopping: None,
            exited: None,
        })
    }

    /// The process id; that of the guard when there is one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop, without waiting. [`Self::poll`] says when it has ended, and sends harder signals in
    /// time.
    pub fn begin_stop(&mut self) {
        if self.stopping.is_some() || self.exited.is_some() {
            return;
        }
        self.stopping = Some(Stopping { sent: 1, since: Instant::now() });
        if self.guarded {
            self.order(guard::IN_ORDER);
        } else {
            self.signal(self.stop.signals.first().copied().unwrap_or(Signal::SIGKILL));
        }
    }

    /// Tells it to stop without finishing its work: it releases its tasks and ends within seconds.
    pub fn hurry(&mut self) {
        self.begin_stop();
        if self.guarded {
            self.order(guard::AT_ONCE);
        } else {
            self.kill();
        }
    }

    /// Sends an order to the guard. A failed write is ignored: the guard has ended, and needs no order.
    fn order(&mut self, order: u8) {
        if let Some(lifeline) = &mut self.lifeline {
            let _ = lifeline.write_all(&[order]);
        }
    }

    /// Whether it is stopping: [`Self::begin_stop`] or [`Self::hurry`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Its exit status once it has ended.
    pub fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait()?;
            match self.exited {
                // Processes that it left in its group end with it; a guard does that itself.
                Some(_) if !self.guarded => self.signal(Signal::SIGKILL),
                Some(status) => self.end_orphans(status)?,
                None => self.escalate(),
            }
        }
        Ok(self.exited)
    }

    /// Waits until it has ended.
    pub async fn finished(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            tokio::time::sleep(STOP_POLL).await;
        }
    }

    /// Stops it and waits until it has ended. [`Stop::patience`] limits the wait for each signal.
    pub async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.begin_stop();
        self.finished().await
    }

    /// Kills it at once. Only for a process without a guard: killing a guard would leave its child behind.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends the next harder signal if the process did not end in time after the last one.
    fn escalate(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        let rounds = u32::try_from(self.stop.signals.len()).unwrap_or(u32::MAX);
        let patience = if self.guarded {
            self.stop.patience.saturating_mul(rounds).saturating_add(GUARD_MARGIN)
        } else {
            self.stop.patience
        };
        if stopping.since.elapsed() < patience {
            return;
        }
        let next = if self.guarded { None } else { self.stop.signals.get(stopping.sent) };
        stopping.sent += 1;
        stopping.since = Instant::now();
        let signal = next.copied().unwrap_or(Signal::SIGKILL);
        self.signal(signal);
    }

    /// A guard usually ends with an exit code. If a signal ended it, it left its child behind.
    fn end_orphans(&self, status: ExitStatus) -> io::Result<()> {
        if let Some(records) = &self.records
            && status.signal().is_some()
        {
            record::end_orphans(records, self.child.id())?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        signal_group(self.child.id(), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lifeline = None;
        if !self.guarded && self.exited.is_none() {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// Signals a process group. A group that has ended already is no error: stopping is idempotent.
fn signal_group(leader: u32, signal: Signal) {
    let Ok(leader) = i32::try_from(leader) else { return };
    match killpg(Pid::from_raw(leader), signal) {
        Ok(()) | Err(Errno::ESRCH) => (),
        Err(error) => tracing::warn!(leader, %signal, %error, "cannot signal a process group"),
    }
}

fn sinks(launch: &Launch) -> io::Result<(Stdio, Stdio)> {
    let Some(path) = &launch.log else {
        return Ok((Stdio::from(io::stderr()), Stdio::inherit()));
    };
    let file = File::options().create(true).append(true).open(path)?;
    Ok((Stdio::from(file.try_clone()?), Stdio::from(file)))
}
