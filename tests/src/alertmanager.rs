//! A real Alertmanager, which says which alerts it would send.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rowlock_local::process::Process;
use serde_json::Value;
use tempfile::TempDir;

use crate::alerts::run_tool;
use crate::prometheus::{errors, launch, listens_on, log};

/// On an idle machine nothing takes a tenth of it.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How often a starting server, or the state of alerts, is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A running Alertmanager. Dropping it ends the process and removes its data.
#[derive(Debug)]
pub struct Alertmanager {
    process: Process,
    option: String,
    _folder: TempDir,
}

impl Alertmanager {
    /// Starts it with this configuration file (text).
    ///
    /// # Errors
    /// If it is not installed or refuses the configuration.
    pub fn start(config: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rowlock-alertmanager-").tempdir()?;
        fs::write(folder.path().join("alertmanager.yaml"), config)?;
        // Without a port for peers.
        let args = ["--config.file=alertmanager.yaml", "--storage.path=data", "--cluster.listen-address="];
        let mut process = Process::start(&launch("prometheus-alertmanager", &args, folder.path())?)?;
        let since = Instant::now();
        loop {
            let text = fs::read_to_string(log(folder.path()))?;
            if let Some(address) = listens_on(&text) {
                let option = format!("--alertmanager.url=http://{address}");
                return Ok(Self { process, option, _folder: folder });
            }
            let is_alive = process.poll()?.is_none() && since.elapsed() < TIMEOUT;
            ensure!(is_alive, "Alertmanager does not start:\n{}", errors(&text));
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// An alert with these labels (`name=value`) fires.
    ///
    /// # Errors
    /// If Alertmanager refuses it.
    pub fn fire(&self, labels: &[&str]) -> Result<()> {
        run_tool("amtool", &[&[&self.option, "alert", "add"], labels].concat(), "").map(|_| ())
    }

    /// Waits until exactly these alerts (name and label `queue`) are not silenced by others.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_for_active(&self, expected: &[(&str, &str)]) -> Result<()> {
        let expected: BTreeSet<_> =
            expected.iter().map(|(name, queue)| ((*name).to_owned(), (*queue).to_owned())).collect();
        let since = Instant::now();
        loop {
            // Without an option, it lists those that are active.
            let printed = run_tool("amtool", &[&self.option, "alert", "query", "--output=json"], "")?;
            let alerts: Vec<Value> = serde_json::from_str(&printed)?;
            let text = |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap_or("").to_owned();
            let active: BTreeSet<_> =
                alerts.iter().map(|alert| (text(alert, "alertname"), text(alert, "queue"))).collect();
            if active == expected {
                return Ok(());
            }
            ensure!(since.elapsed() < TIMEOUT, "active are {active:?} and not {expected:?}");
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

/// Its folder can be removed only once it has ended.
impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.process.begin_stop();
        let since = Instant::now();
        while since.elapsed() < TIMEOUT && matches!(self.process.poll(), Ok(None)) {
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}
