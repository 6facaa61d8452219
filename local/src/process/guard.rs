//! The guard: runs one command, and stops it on request or when the program that started the guard is gone.

use super::record::Record;
use super::{Launch, signal_group};
use nix::sys::signal::Signal;
use rowlock_daemon::Signals;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, Stdin, stdin};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Added to the number of the signal that ended a command, as shells do for its exit code.
const SIGNALLED: i32 = 128;

/// Orders, written to the guard's standard input: stop and let running work finish, or stop at once. The end
/// of that input means that the program that started the guard is gone.
pub(super) const IN_ORDER: u8 = b's';
pub(super) const AT_ONCE: u8 = b'n';

/// If the command must stop at once, the first signal is sent again after this time: at the second signal, a
/// worker releases its tasks instead of finishing them.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long the command may take after each signal if it must stop at once: a worker releases its tasks, a
/// server ends its sessions.
const HURRIED_PATIENCE: Duration = Duration::from_secs(8);

/// The arguments of the hidden subcommand `guard`, parsed.
#[derive(Debug, Clone)]
pub struct GuardArgs {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// User and group to run it as.
    pub user: Option<(u32, u32)>,
    /// Names of the signals that stop it, one after the other.
    pub signals: Vec<String>,
    /// How long it may take to end after each signal.
    pub patience: Duration,
    /// How long it may continue when the program that started the guard is gone.
    pub linger: Duration,
    /// Folder for the record of the running command.
    pub records: Option<PathBuf>,
}

/// The arguments with which `rowlock` guards this launch.
pub(super) fn arguments(launch: &Launch) -> Vec<OsString> {
    let signals: Vec<&str> = launch.stop.signals.iter().map(|signal| signal.as_str()).collect();
    let mut arguments: Vec<OsString> =
        vec!["guard".into(), "--signals".into(), signals.join(",").into(), "--patience-millis".into()];
    arguments.push(launch.stop.patience.as_millis().to_string().into());
    arguments.extend(["--linger-millis".into(), launch.stop.linger.as_millis().to_string().into()]);
    if let Some((uid, gid)) = launch.user {
        arguments.extend(["--uid".into(), uid.to_string().into(), "--gid".into(), gid.to_string().into()]);
    }
    if let Some(records) = &launch.records {
        arguments.extend(["--records".into(), records.into()]);
    }
    arguments.push("--".into());
    arguments.push(launch.program.clone().into());
    arguments.extend(launch.args.iter().cloned());
    arguments
}

/// Runs the command and returns its exit code.
pub async fn guard(args: GuardArgs) -> io::Result<i32> {
    let (program, rest) = args.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut orders = Orders::new()?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).process_group(0);
    if let Some((uid, gid)) = args.user {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn()?;
    let leader = child.id().ok_or(io::ErrorKind::NotFound)?;
    let record = args.records.as_ref().map(|folder| Record::write(folder, leader)).transpose()?;
    let status = tokio::select! {
        status = child.wait() => status?,
        order = orders.next() => stop(&mut child, leader, &args, &mut orders, order).await?,
    };
    // Processes that the command left in its group end with it.
    signal_group(leader, Signal::SIGKILL);
    drop(record);
    Ok(exit_code(status))
}

async fn stop(
    child: &mut Child,
    leader: u32,
    args: &GuardArgs,
    orders: &mut Orders,
    order: Order,
) -> io::Result<ExitStatus> {
    let signals: Vec<Signal> = args.signals.iter().filter_map(|name| Signal::from_str(name).ok()).collect();
    for signal in signals.iter().filter(|_| order == Order::Finish) {
        signal_group(leader, *signal);
        tokio::select! {
            status = child.wait() => return status,
            () = sleep(args.patience) => (),
            () = orders.until_hurry() => return hurry(child, leader, &signals).await,
        }
    }
    match order {
        Order::Finish => {
            signal_group(leader, Signal::SIGKILL);
            child.wait().await
        }
        Order::Hurry => hurry(child, leader, &signals).await,
        Order::Gone => match timeout(args.linger, child.wait()).await {
            Ok(status) => status,
            Err(_) => hurry(child, leader, &signals).await,
        },
    }
}

async fn hurry(child: &mut Child, leader: u32, signals: &[Signal]) -> io::Result<ExitStatus> {
    let first = signals.first().map(|first| (*first, AGAIN_AFTER));
    for (signal, patience) in
        first.into_iter().chain(signals.iter().map(|signal| (*signal, HURRIED_PATIENCE)))
    {
        signal_group(leader, signal);
        if let Ok(status) = timeout(patience, child.wait()).await {
            return status;
        }
    }
    signal_group(leader, Signal::SIGKILL);
    child.wait().await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Running work may finish, within the patience.
    Finish,
    /// Stop at once.
    Hurry,
    /// The program that started the guard is gone.
    Gone,
}

/// Where orders come from: the program that started the guard, and signals.
struct Orders {
    lifeline: Stdin,
    signals: Signals,
}

impl Orders {
    fn new() -> io::Result<Self> {
        Ok(Self { lifeline: stdin(), signals: Signals::listen()? })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            order = read(&mut self.lifeline) => order,
            _ = self.signals.next() => Order::Finish,
        }
    }

    async fn until_hurry(&mut self) {
        while read(&mut self.lifeline).await == Order::Finish {}
    }
}

async fn read(lifeline: &mut Stdin) -> Order {
    let mut byte = [0];
    match lifeline.read(&mut byte).await {
        Ok(1) if byte[0] == IN_ORDER => Order::Finish,
        Ok(1) => Order::Hurry,
        _ => Order::Gone,
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal)).unwrap_or(1)
}
