//! Flags, environment and file, in this order of precedence, become one checked configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use http::Uri;
use rowlock_crds::{Dur, env};

use crate::config_file;
use crate::error::ConfigError;
use crate::logging::LogFormat;

const SLOTS: u32 = 10;
/// What the database takes as an instance's capacity.
pub(crate) const SLOTS_MAX: u32 = 10_000;
const HANDLER_URL: &str = "http://127.0.0.1:8080/tasks";
/// The pod's grace of 30 s less what leaving takes.
const DRAIN_GRACE: Duration = Duration::from_secs(25);
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Claims tasks of one queue and has an HTTP handler do them
#[derive(Parser)]
#[command(name = "rowlock-worker", version)]
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
pub struct Args {
    /// Connection string of the database
    #[arg(long, env = env::DATABASE_URL, hide_env_values = true)]
    database_url: Option<String>,
    /// File that holds the connection string; wins over the string itself
    #[arg(long, env = env::DATABASE_URL_FILE)]
    database_url_file: Option<PathBuf>,
    /// File with the CA of the database's certificate, as PEM; `require` and a URL without sslmode then mean verify-full
    #[arg(long, env = env::DATABASE_CA_FILE)]
    database_ca_file: Option<PathBuf>,
    /// Name of the queue
    #[arg(long, env = env::QUEUE)]
    queue: Option<String>,
    /// Name of this instance in the database and in logs [default: the host's name and the process id]
    #[arg(long, env = env::INSTANCE_NAME)]
    name: Option<String>,
    /// How many slots this instance has: tasks that run at a time [default: 10]
    #[arg(long, env = env::SLOTS)]
    slots: Option<u32>,
    /// Where the handler takes tasks [default: `http://127.0.0.1:8080/tasks`]
    #[arg(long, env = env::HANDLER_URL)]
    handler_url: Option<String>,
    /// Address of /healthz, /readyz and /metrics [default: 127.0.0.1:9464]
    #[arg(long, env = env::LISTEN)]
    listen: Option<SocketAddr>,
    /// How long running tasks may take to finish after SIGTERM, SIGINT or SIGHUP [default: 25s]
    #[arg(long, env = env::DRAIN_GRACE)]
    drain_grace: Option<Dur>,
    /// json or text [default: json]
    #[arg(long, env = env::LOG_FORMAT)]
    log_format: Option<LogFormat>,
    /// Do not LISTEN for NOTIFY; poll once a second
    #[arg(long)]
    no_listen: bool,
    /// YAML file with any of these except the connection string itself; its keys are the flags' names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Everything a worker process needs to know.
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
pub struct Config {
    pub database_url: String,
    /// Where it was read, if anywhere: what is written there later is followed.
    pub database_url_file: Option<PathBuf>,
    /// The certificates of the authorities that the database's may be signed by, as PEM.
    pub database_ca: Option<Arc<str>>,
    /// Where those were read: followed, too.
    pub database_ca_file: Option<PathBuf>,
    pub queue: String,
    pub name: String,
    pub slots: u32,
    pub handler_url: Uri,
    pub listen: SocketAddr,
    pub drain_grace: Duration,
    pub log_format: LogFormat,
    pub notify: bool,
}

impl Args {
    /// The arguments of this process. A wrong flag or setting is one line and exit code 2.
    pub fn of_process() -> Result<Config, ConfigError> {
        rowlock_daemon::check_environment().map_err(|error| ConfigError(error.to_string()))?;
        match Self::try_parse() {
            Ok(args) => args.resolve(),
            Err(error) if error.use_stderr() => {
                // Clap's first line says what is wrong; usage and hints are a `--help` away.
                let text = error.to_string();
                let line = text.lines().next().unwrap_or("wrong arguments").trim_start_matches("error: ");
                let missing: Vec<_> = text.lines().skip(1).take_while(|l| l.starts_with("  ")).collect();
                Err(ConfigError(format!("{line}{}; see --help", missing.concat())))
            }
            // --help and --version print and leave with 0.
            Err(error) => error.exit(),
        }
    }

    pub fn resolve(self) -> Result<Config, ConfigError> {
        let Self {
            database_url,
            database_url_file,
            database_ca_file,
            queue,
            name,
            slots,
            handler_url,
            listen,
            drain_grace,
            log_format,
            no_listen,
            config,
        } = self;
        let file = config.as_deref().map(config_file::read).transpose()?.unwrap_or_default();
        let log_format = match (log_format, file.log_format) {
            (Some(format), _) => format,
            (None, Some(text)) => text.parse().map_err(|e| ConfigError(format!("log-format: {e}")))?,
            (None, None) => LogFormat::default(),
        };
        let slots = slots.or(file.slots).unwrap_or(SLOTS);
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(ConfigError(format!("--slots is {slots}; choose 1 to {SLOTS_MAX}")));
        }
        let database_url_file = database_url_file.or(file.database_url_file);
        let database_ca_file =
            database_ca_file.or(file.database_ca_file).filter(|path| !path.as_os_str().is_empty());
        Ok(Config {
            database_url: find_url(database_url, database_url_file.clone())?,
            database_url_file,
            database_ca: database_ca_file.as_deref().map(read_ca).transpose()?,
            database_ca_file,
            queue: queue
                .or(file.queue)
                .filter(|queue| !queue.is_empty())
                .ok_or_else(|| missing("--queue", env::QUEUE))?,
            name: name.or(file.name).filter(|name| !name.is_empty()).unwrap_or_else(default_name),
            slots,
            handler_url: parse_handler_url(
                &handler_url.or(file.handler_url).unwrap_or_else(|| HANDLER_URL.to_owned()),
            )?,
            listen: listen.or(file.listen).unwrap_or(LISTEN),
            drain_grace: drain_grace.or(file.drain_grace).map_or(DRAIN_GRACE, Dur::as_duration),
            log_format,
            notify: !(no_listen || file.no_listen.unwrap_or(false)),
        })
    }
}

fn missing(flag: &str, env: &str) -> ConfigError {
    ConfigError(format!("{flag} is not given; set it or {env}"))
}

fn find_url(url: Option<String>, file: Option<PathBuf>) -> Result<String, ConfigError> {
    let url = match file {
        Some(path) => std::fs::read_to_string(&path)
            .map_err(|error| ConfigError(format!("--database-url-file {}: {error}", path.display())))?,
        None => url.unwrap_or_default(),
    };
    let url = url.trim();
    if url.is_empty() { Err(missing("--database-url", env::DATABASE_URL)) } else { Ok(url.to_owned()) }
}

fn read_ca(path: &Path) -> Result<Arc<str>, ConfigError> {
    let wrong = |error| ConfigError(format!("--database-ca-file {}: {error}", path.display()));
    Ok(std::fs::read_to_string(path).map_err(wrong)?.into())
}

pub(crate) fn parse_handler_url(text: &str) -> Result<Uri, ConfigError> {
    // The URL itself is not repeated: it may carry a secret.
    let uri: Uri = text.parse().map_err(|error| ConfigError(format!("--handler-url is no URL: {error}")))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(ConfigError("--handler-url must look like http://127.0.0.1:8080/tasks".to_owned()));
    }
    Ok(uri)
}

/// Unique enough for people; the database tells instances apart by their ids.
pub(crate) fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "worker" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[&str]) -> Result<Config, ConfigError> {
        let args = ["rowlock-worker", "--database-url", "postgres://h/d", "--queue", "q"];
        Args::try_parse_from(args.iter().chain(flags)).unwrap().resolve()
    }

    fn check_wrong(flags: &[&str], expected: &str) {
        let Err(error) = resolve(flags) else { panic!("{flags:?} was taken") };
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn clap_agrees_with_the_definition() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn every_variable_of_a_flag_is_known() {
        use clap::CommandFactory;
        for name in Args::command().get_arguments().filter_map(|flag| flag.get_env()?.to_str()) {
            assert!(env::ALL.contains(&name), "{name} would be refused as misspelt");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config.slots, 10);
        assert_eq!(config.handler_url, "http://127.0.0.1:8080/tasks");
        assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
        assert_eq!(config.drain_grace.as_secs(), 25);
        assert!(config.notify);
    }

    #[test]
    fn what_is_wrong_is_one_line_that_says_what_to_change() {
        check_wrong(&["--slots", "0"], "choose 1 to 10000");
        check_wrong(&["--handler-url", "https://h/"], "must look like http://");
        check_wrong(&["--handler-url", "/tasks"], "must look like http://");
        check_wrong(&["--database-url-file", "/nowhere"], "/nowhere");
        check_wrong(&["--database-ca-file", "/nowhere"], "--database-ca-file /nowhere");
        check_wrong(&["--config", "/nowhere.yaml"], "/nowhere.yaml");
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.yaml");
        std::fs::write(&path, "slots: 3\ndrain-grace: 1m\nlog-format: text\nno-listen: true\n").unwrap();
        let config = resolve(&["--config", path.to_str().unwrap(), "--slots", "4"]).unwrap();
        assert_eq!((config.slots, config.drain_grace.as_secs()), (4, 60));
        assert_eq!(config.log_format, LogFormat::Text);
        assert!(!config.notify);
        std::fs::write(&path, "sltos: 3\n").unwrap();
        check_wrong(&["--config", path.to_str().unwrap()], "sltos");
    }

    #[test]
    fn the_url_comes_from_its_file_without_the_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        std::fs::write(&path, "postgres://from-file/d\n").unwrap();
        let config = resolve(&["--database-url-file", path.to_str().unwrap()]).unwrap();
        assert_eq!(config.database_url, "postgres://from-file/d");
    }
}
