//! Flags, environment and file, in this order of precedence, become one checked configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use http::Uri;
use rowlock_crds::{Dur, env};

use crate::error::ConfigError;
use crate::logging::LogFormat;
use crate::settings::{self, Settings};
use crate::traces::parse_endpoint;

pub(crate) const DEFAULT_SLOTS: u32 = 10;
/// The largest capacity of an instance that the database accepts.
pub(crate) const MAX_SLOTS: u32 = 10_000;
const DEFAULT_HANDLER_URL: &str = "http://127.0.0.1:8080/tasks";
/// A pod's default grace period is 30 s. The remaining 5 s are for leaving.
pub(crate) const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(25);
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

// Without clap's `env`, which would not tell a flag from a variable: see find_url.
const DATABASE_URL_HELP: &str = "Connection string of the database [env: ROWLOCK_DATABASE_URL]";

/// Claims tasks of one queue and sends them to an HTTP handler
#[derive(Parser)]
#[command(name = "rowlock-worker", version)]
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
pub struct Args {
    #[arg(long, value_name = "URL", conflicts_with = "database_url_file", help = DATABASE_URL_HELP)]
    database_url: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// YAML file with any of these settings but --database-url; its keys are the names of the flags
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The checked configuration of a worker process.
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
pub struct Config {
    /// Connection string of the database.
    pub database_url: String,
    /// The file that the connection string came from. The worker reads it again and follows its changes.
    pub database_url_file: Option<PathBuf>,
    /// CA certificates to verify the database server with, as PEM.
    pub database_ca: Option<Arc<str>>,
    /// The file that the CA certificates came from. The worker follows its changes too.
    pub database_ca_file: Option<PathBuf>,
    /// Name of the queue.
    pub queue: String,
    /// Name of the instance in the database and in logs.
    pub name: String,
    /// UID of the pod that it runs in.
    pub pod_uid: Option<String>,
    /// How many tasks the instance runs at a time.
    pub slots: u32,
    /// URL of the handler.
    pub handler_url: Uri,
    /// Address to serve `/healthz`, `/readyz` and `/metrics` on.
    pub listen: SocketAddr,
    /// How long running tasks may take to finish once the worker is asked to stop.
    pub drain_grace: Duration,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// URL of the collector that traces are exported to, by OTLP over HTTP.
    pub otlp_endpoint: Option<Uri>,
    /// Whether the worker polls only and does not listen for NOTIFY.
    pub poll_only: bool,
}

impl Args {
    /// The configuration that this process was started with. The error is one line; the exit code for it is
    /// 2.
    pub fn of_process() -> Result<Config, ConfigError> {
        rowlock_daemon::check_environment().map_err(|error| ConfigError(error.to_string()))?;
        match Self::try_parse() {
            Ok(args) => args.resolve(),
            Err(error) if error.use_stderr() => {
                // Clap's first line says what is wrong; `--help` shows the rest.
                let text = error.to_string();
                let line = text.lines().next().unwrap_or("wrong arguments").trim_start_matches("error: ");
                let missing: Vec<_> = text.lines().skip(1).take_while(|l| l.starts_with("  ")).collect();
                Err(ConfigError(format!("{line}{}; see --help", missing.concat())))
            }
            // --help and --version: prints and exits with 0.
            Err(error) => error.exit(),
        }
    }

    /// Reads the files that the arguments name, adds the defaults and checks every value.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let Self { database_url, mut settings, config } = self;
        let mut file = config.as_deref().map(settings::read_file).transpose()?.unwrap_or_default();
        let given = UrlSource { url: database_url, file: settings.database_url_file.take() };
        let configured = UrlSource { url: None, file: file.database_url_file.take() };
        let source = find_url(given, UrlSource::of_environment(), configured);
        let settings = settings.or(file);
        let slots = settings.slots.unwrap_or(DEFAULT_SLOTS);
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(ConfigError(format!("--slots is {slots}; choose 1 to {MAX_SLOTS}")));
        }
        let database_ca_file = settings.database_ca_file.filter(|path| !path.as_os_str().is_empty());
        Ok(Config {
            database_url: source.read()?,
            database_url_file: source.file,
            database_ca: database_ca_file.as_deref().map(read_ca).transpose()?,
            database_ca_file,
            queue: settings
                .queue
                .filter(|queue| !queue.is_empty())
                .ok_or_else(|| missing("--queue", env::QUEUE))?,
            name: settings.name.filter(|name| !name.is_empty()).unwrap_or_else(default_name),
            pod_uid: settings.pod_uid.filter(|uid| !uid.is_empty()).map(check_pod_uid).transpose()?,
            slots,
            handler_url: parse_handler_url(settings.handler_url.as_deref().unwrap_or(DEFAULT_HANDLER_URL))?,
            listen: settings.listen.unwrap_or(DEFAULT_LISTEN),
            drain_grace: settings.drain_grace.map_or(DEFAULT_DRAIN_GRACE, Dur::as_duration),
            log_format: settings.log_format.unwrap_or_default(),
            otlp_endpoint: settings
                .otlp_endpoint
                .filter(|url| !url.is_empty())
                .map(|url| parse_endpoint(&url))
                .transpose()?,
            poll_only: settings.poll_only,
        })
    }
}

fn missing(flag: &str, env: &str) -> ConfigError {
    ConfigError(format!("{flag} is missing; set it or {env}"))
}

/// Where a connection string comes from.
#[derive(Clone, Default)]
struct UrlSource {
    url: Option<String>,
    file: Option<PathBuf>,
}

impl UrlSource {
    /// There, the file wins over the string, which a program may have set for all its children.
    fn of_environment() -> Self {
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match read(env::DATABASE_URL_FILE) {
            Some(file) => Self { url: None, file: Some(file.into()) },
            None => Self {
                url: read(env::DATABASE_URL).map(|url| url.to_string_lossy().into_owned()),
                file: None,
            },
        }
    }

    fn is_given(&self) -> bool {
        self.url.is_some() || self.file.is_some()
    }

    fn read(&self) -> Result<String, ConfigError> {
        let url = match &self.file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("--database-url-file {}: {error}", path.display())))?,
            None => self.url.clone().unwrap_or_default(),
        };
        let url = url.trim();
        if url.is_empty() { Err(missing("--database-url", env::DATABASE_URL)) } else { Ok(url.to_owned()) }
    }
}

/// The flags win over the environment, and that over the file of `--config`, whichever of the two settings
/// each of them uses. Otherwise a variable of the surroundings would decide which database a flag means.
fn find_url(flags: UrlSource, environment: UrlSource, config: UrlSource) -> UrlSource {
    [flags, environment, config].into_iter().find(UrlSource::is_given).unwrap_or_default()
}

fn read_ca(path: &Path) -> Result<Arc<str>, ConfigError> {
    let wrong = |error| ConfigError(format!("--database-ca-file {}: {error}", path.display()));
    Ok(std::fs::read_to_string(path).map_err(wrong)?.into())
}

pub(crate) fn parse_handler_url(text: &str) -> Result<Uri, ConfigError> {
    // The message does not quote the URL, which may contain a secret.
    let uri: Uri =
        text.parse().map_err(|error| ConfigError(format!("--handler-url is not a URL: {error}")))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(ConfigError(
            "--handler-url must look like http://127.0.0.1:8080/tasks; Unix sockets are not supported"
                .to_owned(),
        ));
    }
    Ok(uri)
}

/// Kubernetes names pods by UUIDs, and the database stores them as such.
fn check_pod_uid(uid: String) -> Result<String, ConfigError> {
    let is_hyphen = |index| [8, 13, 18, 23].contains(&index);
    let fits =
        |(index, byte): (usize, u8)| if is_hyphen(index) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    if uid.len() == 36 && uid.bytes().enumerate().all(fits) {
        return Ok(uid);
    }
    let variable = env::POD_UID;
    Err(ConfigError(format!(
        "--pod-uid is not a UID like 6b7ee2c4-1f1c-4a53-9c0e-5d1b1f4f3a10; take {variable} from the field \
         metadata.uid of the pod, or leave it out"
    )))
}

/// The name is shown to people. The database identifies instances by id, so it need not be unique.
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
        let Err(error) = resolve(flags) else { panic!("{flags:?} was accepted") };
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn a_collector_needs_a_plain_url() {
        check_wrong(&["--otlp-endpoint", "ftp://collector:4318"], "must look like http://collector:4318");
        let config =
            resolve(&["--otlp-endpoint", "http://collector:4318"]).unwrap_or_else(|_| unreachable!());
        assert_eq!(config.otlp_endpoint.unwrap().port_u16(), Some(4318));
        assert!(resolve(&["--otlp-endpoint", ""]).is_ok_and(|config| config.otlp_endpoint.is_none()));
    }

    #[test]
    fn clap_agrees_with_the_definition() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn every_environment_variable_of_a_flag_is_in_the_list_of_known_ones() {
        use clap::CommandFactory;
        for name in Args::command().get_arguments().filter_map(|flag| flag.get_env()?.to_str()) {
            assert!(env::ALL.contains(&name), "{name} would be refused as unknown");
        }
    }

    #[test]
    fn the_help_describes_the_worker_and_every_setting() {
        use clap::CommandFactory;
        let help = Args::command().render_help().to_string();
        assert!(help.starts_with("Claims tasks of one queue"), "{help}");
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for default in ["10]", "http://127.0.0.1:8080/tasks]", "127.0.0.1:9464]", "25s]", "json]"] {
            assert!(help.contains(&format!("[default: {default}")), "{default} is not in\n{help}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config.slots, 10);
        assert_eq!(config.handler_url, "http://127.0.0.1:8080/tasks");
        assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
        assert_eq!(config.drain_grace.as_secs(), 25);
        assert!(!config.poll_only);
    }

    #[test]
    fn an_error_is_one_line_that_says_what_to_change() {
        check_wrong(&["--slots", "0"], "choose 1 to 10000");
        check_wrong(&["--pod-uid", "emails-7d9f"], "metadata.uid");
        check_wrong(&["--handler-url", "https://h/"], "must look like http://");
        check_wrong(&["--handler-url", "/tasks"], "must look like http://");
        check_wrong(&["--handler-url", "unix://run/handler.sock"], "Unix sockets are not supported");
        let args = ["rowlock-worker", "--database-url-file", "/nowhere", "--queue", "q"];
        let Err(error) = Args::try_parse_from(args).unwrap().resolve() else { panic!("it does not exist") };
        assert!(error.to_string().contains("--database-url-file /nowhere"), "{error}");
        check_wrong(&["--database-ca-file", "/nowhere"], "--database-ca-file /nowhere");
        check_wrong(&["--config", "/nowhere.yaml"], "/nowhere.yaml");
    }

    #[test]
    fn the_range_of_slots_is_documented() {
        let page = std::fs::read_to_string("../docs/limits.md").unwrap();
        let row = format!("| `rowlock-worker --slots` | 1 to {MAX_SLOTS} |\n");
        assert!(page.contains(&row), "{row}");
        for (slots, is_accepted) in [(0, false), (1, true), (MAX_SLOTS, true), (MAX_SLOTS + 1, false)] {
            assert_eq!(resolve(&["--slots", &slots.to_string()]).is_ok(), is_accepted, "{slots}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.yaml");
        std::fs::write(&path, "slots: 3\ndrain-grace: 1m\nlog-format: text\npoll-only: true\n").unwrap();
        let config = resolve(&["--config", path.to_str().unwrap(), "--slots", "4"]).unwrap();
        assert_eq!((config.slots, config.drain_grace.as_secs()), (4, 60));
        assert_eq!(config.log_format, LogFormat::Text);
        assert!(config.poll_only);
        std::fs::write(&path, "sltos: 3\n").unwrap();
        check_wrong(&["--config", path.to_str().unwrap()], "sltos");
    }

    /// Before the fix, a file won over a string, wherever either came from.
    #[test]
    fn a_database_of_a_flag_wins_over_the_environment_and_that_over_the_config_file() {
        let url: fn(&str) -> UrlSource = |name| UrlSource { url: Some(name.to_owned()), file: None };
        let file: fn(&str) -> UrlSource = |name| UrlSource { url: None, file: Some(name.into()) };
        let name = |found: UrlSource| found.url.or_else(|| Some(found.file?.display().to_string()));
        for (flags, environment) in [(url, file), (url, url), (file, file), (file, url)] {
            let found = find_url(flags("flag"), environment("environment"), file("config"));
            assert_eq!(name(found).as_deref(), Some("flag"));
            let found = find_url(UrlSource::default(), environment("environment"), file("config"));
            assert_eq!(name(found).as_deref(), Some("environment"));
        }
        let found = find_url(UrlSource::default(), UrlSource::default(), file("config"));
        assert_eq!(name(found).as_deref(), Some("config"));
    }

    #[test]
    fn a_flag_is_used_although_the_config_file_names_another_database() {
        let dir = tempfile::tempdir().unwrap();
        let (config, url) = (dir.path().join("worker.yaml"), dir.path().join("url"));
        std::fs::write(&url, "postgres://configured/d").unwrap();
        std::fs::write(&config, format!("database-url-file: {}\n", url.display())).unwrap();
        let config = resolve(&["--config", config.to_str().unwrap()]).unwrap();
        assert_eq!((config.database_url.as_str(), config.database_url_file), ("postgres://h/d", None));
    }

    #[test]
    fn two_databases_by_flags_are_refused_with_both_names() {
        let args = ["rowlock-worker", "--database-url", "u", "--database-url-file", "f", "--queue", "q"];
        let Err(error) = Args::try_parse_from(args) else { panic!("accepted") };
        let error = error.to_string();
        assert!(error.contains("--database-url <URL>"), "{error}");
        assert!(error.contains("--database-url-file <FILE>"), "{error}");
    }

    #[test]
    fn the_connection_string_is_read_from_its_file_without_the_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        std::fs::write(&path, "postgres://from-file/d\n").unwrap();
        let args = ["rowlock-worker", "--database-url-file", path.to_str().unwrap(), "--queue", "q"];
        let config = Args::try_parse_from(args).unwrap().resolve().unwrap();
        assert_eq!(config.database_url, "postgres://from-file/d");
    }
}
