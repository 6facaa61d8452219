//! Records of running processes. The start time and the boot id distinguish a process from a later one with
//! the same process id.

use super::signal_group;
use nix::sys::signal::Signal;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Position of the start time in `/proc/PID/stat`, counted after the name in parentheses (field 22 in
/// `proc(5)`).
const START_TIME_AFTER_NAME: usize = 19;

/// How often we check whether a signalled process has ended.
const POLL: Duration = Duration::from_millis(20);

/// How long a recorded process may take to end after each signal.
const PATIENCE: Duration = Duration::from_secs(5);

/// A record on disk, removed when this value is dropped: its process has ended.
#[derive(Debug)]
pub(super) struct Record(PathBuf);

impl Record {
    pub(super) fn write(folder: &Path, pid: u32) -> io::Result<Option<Self>> {
        let Some(start) = start_time(pid) else { return Ok(None) };
        fs::create_dir_all(folder)?;
        let path = folder.join(pid.to_string());
        fs::write(&path, format!("{start} {} {}", boot(), std::process::id()))?;
        Ok(Some(Self(path)))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Clock ticks from the boot to the start of a process; `None` if it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name itself may contain spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let ticks = fields.nth(START_TIME_AFTER_NAME - 1)?.parse().ok()?;
    (state != "Z").then_some(ticks)
}

/// The content of a record.
struct Recorded {
    pid: u32,
    start: u64,
    guard: u32,
}

/// Ends processes that an earlier run left behind, and returns how many there were. A record that does not
/// match the running process exactly ends nothing.
pub(crate) fn end_recorded(folder: &Path) -> io::Result<usize> {
    // SIGINT makes PostgreSQL stop without waiting for its sessions, and a draining worker stop at once.
    end(folder, |_| true, &[Signal::SIGINT, Signal::SIGKILL])
}

/// Ends what a killed guard left behind.
pub(super) fn end_orphans(folder: &Path, guard: u32) -> io::Result<usize> {
    end(folder, |process| process.guard == guard, &[Signal::SIGKILL])
}

fn end(folder: &Path, which: impl Fn(&Recorded) -> bool, signals: &[Signal]) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let (running, ended): (Vec<_>, Vec<_>) = paths
        .into_iter()
        .map(|path| (parse(&path).filter(is_running), path))
        .partition(|(process, _)| process.is_some());
    for (_, path) in ended {
        let _ = fs::remove_file(&path);
    }
    let ours: Vec<(Recorded, PathBuf)> =
        running.into_iter().filter_map(|(process, path)| Some((process.filter(&which)?, path))).collect();
    for signal in signals {
        let left: Vec<_> =
            ours.iter().map(|(process, _)| process).filter(|process| is_running(process)).collect();
        for process in &left {
            signal_group(process.pid, *signal);
        }
        let since = Instant::now();
        while left.iter().any(|process| is_running(process)) && since.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
    }
    for (_, path) in &ours {
        let _ = fs::remove_file(path);
    }
    Ok(ours.len())
}

fn parse(path: &Path) -> Option<Recorded> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split(' ');
    let start = words.next()?.parse().ok()?;
    let recorded_boot = words.next()?;
    let guard = words.next()?.parse().ok()?;
    (recorded_boot == boot()).then_some(Recorded { pid, start, guard })
}

fn is_running(process: &Recorded) -> bool {
    start_time(process.pid) == Some(process.start)
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_recorded_process_is_ended_and_another_with_its_id_is_not() {
        let folder = std::env::temp_dir().join(format!("rowlock-record-{}", std::process::id()));
        let mut ours = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let record = Record::write(&folder, ours.id()).unwrap().unwrap();
        std::mem::forget(record);
        fs::write(folder.join(other.id().to_string()), format!("1 {} 1", boot())).unwrap();
        assert_eq!(end_recorded(&folder).unwrap(), 1);
        assert!(ours.try_wait().unwrap().is_some());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
