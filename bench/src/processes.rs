//! The handler in Go and the worker as processes, which end when they are dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::scrape::free_address;
use crate::testbed::{Database, QUEUE, Testbed};

/// How often the handler's counts are polled.
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Handler {
    address: String,
    _process: Child,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) served: u32,
    pub(crate) running: u32,
}

impl Handler {
    /// Starts the handler. `work` is `sleep` or `spin`; `length` is a duration as Go writes it.
    pub(crate) async fn start(testbed: &Testbed, work: &str, length: &str) -> Result<Self> {
        let mut process = Command::new(&testbed.tools.handler)
            .args(["-work", work, "-for", length])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the handler")?;
        let output = process.stdout.take().context("the handler has no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address).await?;
        Ok(Self { address: address.trim().to_owned(), _process: process })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/tasks", self.address)
    }

    pub(crate) async fn counts(&self) -> Result<Counts> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.write_all(b"GET /counts HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut numbers = body.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(served)), Some(Ok(running))) => Ok(Counts { served, running }),
            _ => bail!("the handler answered {answer:?}"),
        }
    }

    pub(crate) async fn wait_until(&self, what: &str, reached: impl Fn(Counts) -> bool) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let started = Instant::now();
        loop {
            let counts = self.counts().await?;
            if reached(counts) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("timed out after {} s waiting for {what}; counts: {counts:?}", PATIENCE.as_secs());
            }
            sleep(POLL).await;
        }
    }

    /// Requests per second over a window, without the start-up.
    pub(crate) async fn rate(&self, window: Duration) -> Result<f64> {
        const WARM_UP: Duration = Duration::from_secs(1);
        self.wait_until("the first requests", |counts| counts.served > 0).await?;
        sleep(WARM_UP).await;
        let (from, started) = (self.counts().await?.served, Instant::now());
        sleep(window).await;
        let (to, took) = (self.counts().await?.served, started.elapsed());
        Ok(f64::from(to - from) / took.as_secs_f64())
    }
}

/// A `rowlock-worker` process with a handler.
#[derive(Debug)]
pub(crate) struct Instance {
    process: Child,
    /// Of its metrics.
    pub(crate) address: SocketAddr,
}

impl Instance {
    pub(crate) fn start(
        testbed: &Testbed,
        database: &Database,
        handler: &Handler,
        slots: u32,
    ) -> Result<Self> {
        let address = free_address()?;
        let process = Command::new(&testbed.tools.worker)
            .args(["--queue", QUEUE, "--listen", &address.to_string(), "--slots", &slots.to_string()])
            .args(["--handler-url", &handler.url()])
            .env("ROWLOCK_DATABASE_URL", &database.url)
            .env("RUST_LOG", "error")
            .kill_on_drop(true)
            .spawn()
            .context("cannot start rowlock-worker")?;
        Ok(Self { process, address })
    }

    /// Ends it at once: rows that use one are over by then.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Resident memory.
    pub(crate) fn resident_kib(&self) -> Result<u32> {
        let id = self.process.id().context("rowlock-worker has ended")?;
        let path = PathBuf::from(format!("/proc/{id}/status"));
        let status = std::fs::read_to_string(&path).context("rowlock-worker has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        kib.with_context(|| format!("no VmRSS in {}", path.display()))
    }
}
