//! The guard's own side: run one command until it ends or whoever started the guard is gone.

use super::record::Record;
use super::{Launch, signal_group};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// What a shell adds to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;

/// The hidden subcommand `guard`, parsed.
#[derive(Debug, Clone)]
pub struct GuardArgs {
    pub command: Vec<OsString>,
    pub user: Option<(u32, u32)>,
    pub signals: Vec<String>,
    pub patience: Duration,
    pub records: Option<PathBuf>,
}

/// The arguments that make `rowlock` the guard of this launch.
pub(super) fn arguments(launch: &Launch) -> Vec<OsString> {
    let signals: Vec<&str> = launch.stop.signals.iter().map(|signal| signal.as_str()).collect();
    let mut arguments: Vec<OsString> =
        vec!["guard".into(), "--signals".into(), signals.join(",").into(), "--patience-millis".into()];
    arguments.push(launch.stop.patience.as_millis().to_string().into());
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

/// Runs the command; ends with its exit code.
pub async fn guard(args: GuardArgs) -> io::Result<i32> {
    let (program, rest) = args.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
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
        () = lifeline_cut() => stop(&mut child, leader, &args).await?,
        _ = terminate.recv() => stop(&mut child, leader, &args).await?,
        _ = interrupt.recv() => stop(&mut child, leader, &args).await?,
    };
    // What the command left in its group ends with it.
    signal_group(leader, Signal::SIGKILL);
    drop(record);
    Ok(exit_code(status))
}

async fn stop(child: &mut Child, leader: u32, args: &GuardArgs) -> io::Result<ExitStatus> {
    for name in &args.signals {
        let Ok(signal) = Signal::from_str(name) else { continue };
        signal_group(leader, signal);
        if let Ok(status) = timeout(args.patience, child.wait()).await {
            return status;
        }
    }
    signal_group(leader, Signal::SIGKILL);
    child.wait().await
}

/// Returns when nobody can write to our standard input any more.
async fn lifeline_cut() {
    let mut stdin = tokio::io::stdin();
    let mut byte = [0];
    while matches!(stdin.read(&mut byte).await, Ok(read) if read != 0) {}
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal)).unwrap_or(1)
}
