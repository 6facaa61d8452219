//! Processes that do not outlive us: started under a guard that stops them when we are gone.
//!
//! The guard is a second process that holds the reading end of a pipe. Whatever ends us, SIGKILL too, closes
//! the other end, and the guard then ends its child within seconds. Each guarded process is also recorded with its
//! start time, so that the next start can end what outlived even its guard.

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

/// How often a process that was told to stop is looked at.
const STOP_POLL: Duration = Duration::from_millis(20);

/// How much longer than the guard's own patience we wait for the guard.
const GUARD_MARGIN: Duration = Duration::from_secs(5);

/// Which signals stop a process, one after the other, and how long each may take. SIGKILL always comes last.
#[derive(Debug, Clone)]
pub struct Stop {
    pub signals: Vec<Signal>,
    pub patience: Duration,
    /// How long its guard waits when we are gone: others, who end at once, may need it to hand back what they hold.
    pub linger: Duration,
}

/// What to start and how to stop it.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// Variables of ours that it does not inherit.
    pub without: Vec<&'static str>,
    /// Whether it inherits our environment (a user's handler) or starts with `env` alone (Postgres).
    pub inherit_env: bool,
    pub folder: Option<PathBuf>,
    /// User and group to run as; only root can change them.
    pub user: Option<(u32, u32)>,
    /// Appended to; without it output goes to our standard error.
    pub log: Option<PathBuf>,
    pub stop: Stop,
    /// The executable with the subcommand `guard`; without it the process is only stopped by `Drop`.
    pub guard: Option<PathBuf>,
    /// Folder of the records; needs a guard.
    pub records: Option<PathBuf>,
}

/// A started process. Dropping it ends it: through its guard within seconds, without one at once.
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
        // A group of its own: the terminal's Ctrl-C reaches only us, and we stop things in their order.
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

    /// Its own id; that of its guard when guarded.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop, without waiting. [`Self::poll`] says when it has, and goes on to harder signals.
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

    /// Tells it not to finish anything: it hands back what it can and has ended within seconds.
    pub fn hurry(&mut self) {
        self.begin_stop();
        if self.guarded {
            self.order(guard::AT_ONCE);
        } else {
            self.kill();
        }
    }

    /// A guard that has ended needs no order.
    fn order(&mut self, order: u8) {
        if let Some(lifeline) = &mut self.lifeline {
            let _ = lifeline.write_all(&[order]);
        }
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Its exit status once it has ended.
    pub fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait()?;
            match self.exited {
                // What it left in its group ends with it; a guard has done that itself.
                Some(_) if !self.guarded => self.signal(Signal::SIGKILL),
                Some(status) => self.end_orphans(status)?,
                None => self.press(),
            }
        }
        Ok(self.exited)
    }

    /// Waits until it ends by itself.
    pub async fn finished(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            tokio::time::sleep(STOP_POLL).await;
        }
    }

    /// Stops it and waits; bounded by the patience of each signal.
    pub async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.begin_stop();
        self.finished().await
    }

    /// Ends it at once. For an unguarded process only; a guarded one is stopped by its guard.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    /// The next harder signal when the last one did not help in time.
    fn press(&mut self) {
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

    /// A guard ends with an exit code; one that was killed left its child behind.
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

/// A group that has ended already is no error: stopping is idempotent.
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
