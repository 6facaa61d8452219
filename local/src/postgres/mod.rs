//! The bundled PostgreSQL of `rowlock dev`, tests and benchmarks: downloaded once, started and stopped by
//! the program that uses it.

mod data_dir;
mod install;
mod probe;

pub use install::{DEFAULT_VERSION, OLDEST_VERSION, default_cache_dir};

use crate::error::{Context, Error};
use crate::process::{Launch, Process, Stop};
use data_dir::DataDir;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The superuser of every server started here.
pub const USER: &str = "postgres";

/// How long to wait for a server's first answer. Until then, a server that ends while starting is started
/// again. With a wrong setting, it ends each time.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long a server may say that it is starting up: recovery after a crash reads all WAL since the last
/// checkpoint.
const RECOVERY_PATIENCE: Duration = Duration::from_mins(5);

/// How long each signal may take. SIGINT ends sessions and makes a checkpoint, SIGQUIT ends the server at
/// once.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How long the server continues when the program that started it is gone: workers release their tasks in
/// about a second.
const LINGER: Duration = Duration::from_secs(3);

/// How often a starting server is probed.
const START_POLL: Duration = Duration::from_millis(25);

/// Back-off before a server that ended while starting is started again. Backends of a killed server hold its
/// shared memory for a moment, and another program may have taken the free port.
const RETRY_BACKOFF: Duration = Duration::from_millis(250);

/// How many lines of the server's log an error shows.
const LOG_LINES: usize = 5;

/// What to start.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The version as it is named on Maven, three numbers: `18.3.0`.
    pub version: String,
    /// Folder for the data, the password and the log. It is kept when the server stops.
    pub data_dir: PathBuf,
    /// The port on 127.0.0.1; a free one when not given.
    pub port: Option<u16>,
    /// Server settings, as in `postgres -c name=value`.
    pub settings: Vec<(String, String)>,
    /// More environment variables for the server. It does not inherit ours, which may name another server.
    pub environment: Vec<(OsString, OsString)>,
    /// Folder for downloaded servers.
    pub cache_dir: PathBuf,
    /// The `rowlock` executable, which guards the server; see [`process`](crate::process).
    pub guard: Option<PathBuf>,
}

impl ServerConfig {
    /// The newest supported version with its default settings, on a free port, without a guard.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            version: DEFAULT_VERSION.to_owned(),
            data_dir: data_dir.into(),
            port: None,
            settings: Vec::new(),
            environment: Vec::new(),
            cache_dir: default_cache_dir(),
            guard: None,
        }
    }
}

/// A running server. Dropping it stops the server.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    data_dir: DataDir,
    bin: PathBuf,
    port: u16,
    process: Process,
}

impl Server {
    /// Downloads the version and creates the data directory if they are missing, starts the server and
    /// waits until it takes connections.
    pub async fn start(config: &ServerConfig) -> Result<Self, Error> {
        let bin = install::ensure_installed(&config.cache_dir, &config.version).await?;
        let data_dir = data_dir::ensure(config, &bin).await?;
        if let Some(port) = config.port {
            TcpListener::bind(("127.0.0.1", port))
                .with_context(|| format!("port {port} is not free; choose another, or none"))?;
        }
        let (process, port) = run(config, &data_dir, &bin, config.port).await?;
        Ok(Self { config: config.clone(), data_dir, bin, port, process })
    }

    /// The connection string of a database; the database `postgres` always exists.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.data_dir.password, self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster, from its own file.
    pub fn pid(&self) -> Result<u32, Error> {
        let path = self.data_dir.cluster.join("postmaster.pid");
        let text = std::fs::read_to_string(&path).with_context(|| "the server does not run".to_owned())?;
        text.lines().next().and_then(|line| line.trim().parse().ok()).ok_or(Error::NoPid)
    }

    /// The actual data directory. It is outside the configured folder if the server's user cannot enter that
    /// folder.
    #[must_use]
    pub fn cluster_dir(&self) -> &Path {
        &self.data_dir.cluster
    }

    /// Ends all sessions, makes a checkpoint and stops.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.process.stop().await?;
        Ok(())
    }

    /// Simulates a crash: kills the postmaster and leaves its backends to notice that by themselves.
    pub async fn kill9(&mut self) -> Result<(), Error> {
        let pid = i32::try_from(self.pid()?).map_err(std::io::Error::other)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)?;
        self.process.stop().await?;
        Ok(())
    }

    /// Starts it again with the same port and data; stops it first if it runs.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop().await?;
        (self.process, _) = run(&self.config, &self.data_dir, &self.bin, Some(self.port)).await?;
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.poll(), Ok(None))
    }
}

async fn run(
    config: &ServerConfig,
    data_dir: &DataDir,
    bin: &Path,
    port: Option<u16>,
) -> Result<(Process, u16), Error> {
    let since = Instant::now();
    loop {
        let chosen = port.map_or_else(free_port, Ok)?;
        let mut process = Process::start(&launch(config, data_dir, bin, chosen))
            .with_context(|| format!("cannot start {}", bin.join("postgres").display()))?;
        if answers(&mut process, chosen).await? {
            return Ok((process, chosen));
        }
        if START_PATIENCE <= since.elapsed() {
            return Err(Error::Start(last_lines(data_dir)));
        }
        tokio::time::sleep(RETRY_BACKOFF).await;
    }
}

/// Waits until the server takes connections; false if it ended before that.
async fn answers(process: &mut Process, port: u16) -> Result<bool, Error> {
    let since = Instant::now();
    let mut starting = false;
    loop {
        if process.poll()?.is_some() {
            return Ok(false);
        }
        match probe::probe(port).await {
            probe::Answer::Ready => return Ok(true),
            probe::Answer::Starting => starting = true,
            probe::Answer::Silent => (),
        }
        let patience = if starting { RECOVERY_PATIENCE } else { START_PATIENCE };
        if patience < since.elapsed() {
            process.stop().await?;
            return Err(Error::NoAnswer { port, patience });
        }
        tokio::time::sleep(START_POLL).await;
    }
}

fn launch(config: &ServerConfig, data_dir: &DataDir, bin: &Path, port: u16) -> Launch {
    let mut args: Vec<OsString> = vec!["-D".into(), data_dir.cluster.clone().into()];
    let own = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
    ];
    let port = port.to_string();
    let given = config.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain([("port", port.as_str())]).chain(given) {
        args.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    Launch {
        program: bin.join("postgres"),
        args,
        env: data_dir::environment().into_iter().chain(config.environment.iter().cloned()).collect(),
        without: Vec::new(),
        inherit_env: false,
        folder: Some(data_dir.cluster.clone()),
        user: data_dir.user,
        log: Some(data_dir.log.clone()),
        stop: Stop {
            signals: vec![Signal::SIGINT, Signal::SIGQUIT],
            patience: STOP_PATIENCE,
            linger: LINGER,
        },
        guard: config.guard.clone(),
        records: config.guard.as_ref().map(|_| data_dir.records.clone()),
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn last_lines(data_dir: &DataDir) -> String {
    let text = std::fs::read_to_string(&data_dir.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
    let shown: Vec<&str> = lines.into_iter().rev().collect();
    format!("{}\n(whole log: {})", shown.join("\n"), data_dir.log.display())
}
