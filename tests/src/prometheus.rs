//! A real Prometheus that scrapes real processes and evaluates real rules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use rowlock_local::process::{Launch, Process, Stop};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use url::Url;

/// On an idle machine nothing takes a tenth of it.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How often a starting server, or an expression without a result, is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How often it scrapes, and how often it evaluates rules.
const INTERVAL: &str = "1s";

/// A running Prometheus. Dropping it ends the process and removes its data.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    /// The process in whose network it runs, if not in that of this process.
    network: Option<u32>,
    process: Process,
    folder: TempDir,
}

/// One series of the result of an instant query.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// An alert that is pending or firing.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub state: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    error: Option<String>,
}

impl Prometheus {
    /// Starts it with `scrape_configs` as in its configuration file, and with rule files (text). It scrapes
    /// and evaluates once a second.
    ///
    /// # Errors
    /// If it is not installed or refuses the configuration.
    pub async fn start(scrape_configs: &Value, rule_files: &[&str]) -> Result<Self> {
        Self::start_in(None, scrape_configs, rule_files).await
    }

    /// The same, in the network namespace of a process.
    ///
    /// # Errors
    /// If it is not installed or refuses the configuration.
    pub async fn start_in(network: Option<u32>, scrape_configs: &Value, rule_files: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rowlock-prometheus-").tempdir()?;
        let mut names = Vec::new();
        for (number, text) in rule_files.iter().enumerate() {
            names.push(format!("rules-{number}.yaml"));
            fs::write(folder.path().join(format!("rules-{number}.yaml")), text)?;
        }
        let global = json!({ "scrape_interval": INTERVAL, "evaluation_interval": INTERVAL });
        let config = json!({ "global": global, "rule_files": names, "scrape_configs": scrape_configs });
        // JSON is YAML.
        fs::write(folder.path().join("prometheus.yaml"), config.to_string())?;
        let args = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data"];
        let mut launch = launch("prometheus", &args, folder.path())?;
        if let Some(process) = network {
            let program = std::mem::replace(&mut launch.program, find("nsenter")?);
            let first = [format!("--net=/proc/{process}/ns/net").into(), "--".into(), program.into()];
            launch.args.splice(0..0, first);
        }
        let process = Process::start(&launch)?;
        let mut prometheus = Self { address: String::new(), network, process, folder };
        prometheus.wait_until_ready().await?;
        Ok(prometheus)
    }

    /// The address of its pages and its API, without a scheme.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The series that an expression has now.
    ///
    /// # Errors
    /// If Prometheus refuses the expression or does not answer.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Data {
            result_type: String,
            result: Value,
        }
        #[derive(Deserialize)]
        struct Series {
            metric: BTreeMap<String, String>,
            value: (f64, String),
        }
        let data: Data = self.get("query", &[("query", expression)]).await.context(expression.to_owned())?;
        let series: Vec<Series> = match data.result_type.as_str() {
            "vector" => serde_json::from_value(data.result)?,
            "scalar" => {
                vec![Series { metric: BTreeMap::new(), value: serde_json::from_value(data.result)? }]
            }
            other => bail!("{expression}: the result is a {other}"),
        };
        let sample = |one: Series| Ok(Sample { labels: one.metric, value: one.value.1.parse()? });
        series.into_iter().map(sample).collect()
    }

    /// Waits until an expression has a result.
    ///
    /// # Errors
    /// If that takes too long, or the expression is refused.
    pub async fn wait_for(&self, expression: &str) -> Result<Vec<Sample>> {
        let since = Instant::now();
        loop {
            let samples = self.query(expression).await?;
            if !samples.is_empty() {
                return Ok(samples);
            }
            ensure!(since.elapsed() < TIMEOUT, "no result within {TIMEOUT:?}: {expression}");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// All alerts that are pending or firing.
    ///
    /// # Errors
    /// If Prometheus does not answer.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        #[derive(Deserialize)]
        struct Data {
            alerts: Vec<Alert>,
        }
        let data: Data = self.get("alerts", &[]).await?;
        Ok(data.alerts)
    }

    /// Its rule groups with the result of their last evaluation.
    ///
    /// # Errors
    /// If Prometheus does not answer.
    pub async fn rule_groups(&self) -> Result<Value> {
        self.get("rules", &[]).await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let (since, log) = (Instant::now(), log(self.folder.path()));
        loop {
            let text = fs::read_to_string(&log)?;
            if let Some(status) = self.process.poll()? {
                bail!("Prometheus ended ({status}):\n{}", errors(&text));
            }
            if let Some(address) = listens_on(&text) {
                self.address = address;
                if self.page("/-/ready").await.is_ok_and(|(status, _)| status == 200) {
                    return Ok(());
                }
            }
            ensure!(since.elapsed() < TIMEOUT, "Prometheus is not ready:\n{text}");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Result<T> {
        let mut url = Url::parse(&format!("http://{}/api/v1/{endpoint}", self.address))?;
        url.query_pairs_mut().extend_pairs(parameters);
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let (status, body) = self.page(&path).await?;
        let answer: Answer<T> =
            serde_json::from_slice(&body).with_context(|| format!("Prometheus answered {status}"))?;
        if let Some(error) = answer.error {
            bail!("Prometheus answered {status}: {error}");
        }
        answer.data.context("Prometheus answered without data")
    }

    async fn connect(&self) -> Result<TcpStream> {
        let Some(process) = self.network else { return Ok(TcpStream::connect(&self.address).await?) };
        let network = fs::File::open(format!("/proc/{process}/ns/net"))?;
        let address = self.address.clone();
        // A socket stays in the network in which its thread created it.
        let thread = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        let connected: std::io::Result<_> =
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("no connection")));
        Ok(TcpStream::from_std(connected?)?)
    }

    async fn page(&self, path: &str) -> Result<(u16, Bytes)> {
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path).header("host", &self.address).body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        drop(sender);
        connection.await??;
        Ok((status, body))
    }
}

/// Its folder can be removed only once it has ended.
impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.begin_stop();
        let since = Instant::now();
        while since.elapsed() < TIMEOUT && matches!(self.process.poll(), Ok(None)) {
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

pub(crate) fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Where a program is.
fn find(program: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&paths).map(|path| path.join(program)).find(|one| one.is_file());
    path.with_context(|| format!("{program} is not installed: run `tests/install.sh test`"))
}

/// A program of Prometheus in a folder of its own, with its log there.
pub(crate) fn launch(program: &str, args: &[&str], folder: &Path) -> Result<Launch> {
    // A free port, which its log names.
    let all = args.iter().chain(&["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
    Ok(Launch {
        program: find(program)?,
        args: all.map(Into::into).collect(),
        env: Vec::new(),
        without: Vec::new(),
        inherit_env: true,
        folder: Some(folder.to_owned()),
        user: None,
        log: Some(log(folder)),
        // Its data is removed, so that it need not write it.
        stop: Stop {
            signals: vec![Signal::SIGKILL],
            patience: Duration::from_secs(5),
            linger: Duration::ZERO,
        },
        guard: Some(crate::server::guard()?),
        records: None,
    })
}

/// The errors in its log, or all of it if it has none.
pub(crate) fn errors(log: &str) -> String {
    let is_error = |line: &&str| line.to_lowercase().contains("\"level\":\"error\"");
    let errors: Vec<&str> = log.lines().filter(is_error).collect();
    if errors.is_empty() { log.to_owned() } else { errors.join("\n") }
}

/// The address in its log, once it listens. The first line about it has the port 0.
pub(crate) fn listens_on(log: &str) -> Option<String> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line["msg"] == "Listening on")?;
    line["address"].as_str().map(str::to_owned)
}
