//! The operator as a process, run as in its image.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::layout::NAMESPACE;
use crate::scrape::free_address;

/// Clock ticks per second in /proc, on every Linux that we support.
const TICKS_PER_SECOND: u64 = 100;

pub(crate) struct OperatorProcess {
    process: Child,
    /// Of its metrics.
    pub(crate) address: SocketAddr,
}

impl OperatorProcess {
    /// Starts the operator for one namespace, or for all. Dropping it stops the process.
    pub(crate) fn start(kubeconfig: &Path, only: Option<&str>, log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        let address = free_address()?;
        let process = Command::new(program()?)
            .args(only.map(|namespace| ["--namespace", namespace]).into_iter().flatten())
            .args(["--lease-namespace", NAMESPACE, "--worker-image", "worker:bench"])
            .args(["--listen", &address.to_string(), "--allowed-database-hosts", "127.0.0.1,localhost"])
            .env("KUBECONFIG", kubeconfig)
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .context("cannot start rowlock-operator")?;
        Ok(Self { process, address })
    }

    pub(crate) fn resident_mib(&self) -> Result<f64> {
        self.memory("VmRSS:")
    }

    /// The highest resident memory since the start.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        self.memory("VmHWM:")
    }

    /// The processor time used since the start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let text = self.read("stat")?;
        // Counted after the name in parentheses, which may contain anything.
        let fields: Vec<&str> = text.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks = fields.get(11..13).context("no times")?.iter().map(|field| field.parse::<u64>());
        let ticks = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    fn memory(&self, field: &str) -> Result<f64> {
        let text = self.read("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kib: u32 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(f64::from(kib) / 1024.0)
    }

    fn read(&self, file: &str) -> Result<String> {
        let id = self.process.id().context("rowlock-operator has ended")?;
        std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/{file}")))
            .context("rowlock-operator has ended")
    }
}

/// The operator's executable, in the folder of this program: the Makefile builds both.
fn program() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.parent().context("this program has no folder")?.join("rowlock-operator");
    ensure!(
        program.is_file(),
        "{} is missing: run `make bench-operator` or `make bench-autoscale`",
        program.display()
    );
    Ok(program)
}
