//! What a chaos test needs: a server, one queue, worker processes and the folder of logs.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rowlock_crds::{Backoff, Dur, Policy, RetryPolicy};
use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::{Connect, Db, Declaration};
use rowlock_tests::history::{Final, Log, Violation};
use tokio::time::{Instant, sleep};

use crate::{SHOWN, fleet::Fleet, proxy::Proxy};

pub(crate) const QUEUE: &str = "chaos";
/// For tasks enqueued without `max_attempts`. Faults use up attempts, and few tasks should become dead
/// because of that.
const MAX_ATTEMPTS: u16 = 25;
const BACKOFF: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(3);
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
const KEEP: Duration = Duration::from_hours(24);

/// What to set up.
pub(crate) struct HarnessConfig {
    pub(crate) total: u32,
    /// Handlers without random failures.
    pub(crate) calm: bool,
    pub(crate) seed: u64,
    /// Environment variables of the server.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

pub(crate) struct Harness {
    pub(crate) server: Server,
    /// The direct connection, for observers.
    pub(crate) url: String,
    pub(crate) proxy: Proxy,
    /// The connection through the proxy, for producers and instances.
    pub(crate) proxied: String,
    pub(crate) folder: PathBuf,
    pub(crate) fleet: Arc<Fleet>,
    seed: u64,
    /// Dropped last, and kept after a failure.
    temp: Option<tempfile::TempDir>,
}

/// A number from the environment. Empty counts as unset, so that the Makefile can pass its variables on
/// unconditionally.
pub(crate) fn from_env(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            Ok(Some(text.parse().with_context(|| format!("{name} is not a number: {text}"))?))
        }
        _ => Ok(None),
    }
}

pub(crate) fn declaration(total: u32, generation: i64) -> Declaration {
    let retry = RetryPolicy {
        max_attempts: MAX_ATTEMPTS,
        backoff: Backoff::Fixed(Dur(BACKOFF)),
        ..RetryPolicy::default()
    };
    Declaration {
        name: QUEUE.into(),
        owner: "chaos".into(),
        generation,
        policy: Policy { retry, timeout: Dur(TIMEOUT), ..Policy::default() },
        max_attempts: MAX_ATTEMPTS,
        total_workers: total,
        paused: false,
        backlog_limit: 1_000_000,
        payload_limit: 1 << 20,
        keep_completed: KEEP,
        keep_dead: KEEP,
        keep_cancelled: KEEP,
        max_delay: KEEP,
    }
}

impl Harness {
    pub(crate) async fn start(config: &HarnessConfig) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("rowlock-chaos-").tempdir()?;
        let folder = temp.path().join("logs");
        std::fs::create_dir(&folder)?;
        let mut server = ServerConfig::new(temp.path().join("postgres"));
        server.environment.clone_from(&config.environment);
        let server = Server::start(&server).await?;
        let proxy = Proxy::start(server.port()).await?;
        let url = server.url("postgres");
        // The proxy must be able to read the protocol, so no TLS.
        let proxied =
            url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port)) + "?sslmode=disable";
        let db = connect(&url).await?;
        db.migrate().await?;
        rowlock_queue::declare(&db, &declaration(config.total, 1)).await?;
        db.close().await;
        let fleet = Fleet::start(&proxied, &folder, config.calm, config.seed)?;
        Ok(Self { server, url, proxy, proxied, folder, fleet, seed: config.seed, temp: Some(temp) })
    }

    /// The lines of the server's log that tell of a crash.
    pub(crate) fn crashes_of_server(&self) -> Vec<String> {
        let log =
            std::fs::read_to_string(self.server.cluster_dir().with_extension("log")).unwrap_or_default();
        let told = |line: &&str| line.contains("PANIC") || line.contains("terminated by signal");
        log.lines().filter(told).map(str::to_owned).collect()
    }

    /// Every log of events.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let logs = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        logs.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect()
    }

    pub(crate) async fn wait_until_drained(&self, patience: Duration) -> Result<()> {
        let since = Instant::now();
        let mut told = since;
        loop {
            let db = connect(&self.url).await?;
            let audit = rowlock_queue::audit(&db).await;
            db.close().await;
            match audit {
                Ok(audit) if audit.iter().all(|queue| queue.open == 0) => return Ok(()),
                // The checker reports which tasks are stuck.
                Ok(audit) if patience < since.elapsed() => {
                    eprintln!("chaos: not drained after {} s: {audit:?}", patience.as_secs());
                    return Ok(());
                }
                Ok(audit) if REPORT_INTERVAL < told.elapsed() => {
                    told = Instant::now();
                    let open: i64 = audit.iter().map(|queue| queue.open).sum();
                    eprintln!(
                        "chaos: {open} tasks are open, {:.0} s after the last fault",
                        since.elapsed().as_secs_f64()
                    );
                }
                Err(error) if patience < since.elapsed() => return Err(error.into()),
                _ => sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// Ends all processes; the logs of a failed run are kept.
    pub(crate) fn close(mut self, result: Result<()>) -> Result<()> {
        let Err(error) = result else { return Ok(()) };
        let kept = self.temp.take().map(tempfile::TempDir::keep).unwrap_or_default();
        Err(error.context(format!("seed {}; logs and database are in {}", self.seed, kept.display())))
    }
}

/// Fails with all violations and the history of their tasks.
pub(crate) fn assert_no_violations(log: &Log, end: &Final, violations: &[Violation]) -> Result<()> {
    for violation in violations.iter().take(SHOWN) {
        eprintln!("chaos: {violation}");
        if let Some(task) = violation.task() {
            eprintln!("{}", log.tell(task, end));
        }
    }
    ensure!(violations.is_empty(), "{} violations", violations.len());
    Ok(())
}

pub(crate) async fn connect(url: &str) -> Result<Db> {
    let connect = Connect::new(url, "chaos", 1);
    Ok(Db::connect_with_retry(&connect, Some(Duration::from_mins(1))).await?)
}
