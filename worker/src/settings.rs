//! Settings that can come from a flag, an environment variable or the file of `--config`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rowlock_crds::{Dur, env};
use serde::Deserialize;

use crate::error::ConfigError;
use crate::logging::LogFormat;

// The only list of settings. Each field is a flag and also a key of the file, with the same name. (Not a doc
// comment, which would become the description in `--help`.)
#[derive(clap::Args, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Settings {
    #[arg(long, value_name = "FILE", help = DATABASE_URL_FILE_HELP)]
    pub(crate) database_url_file: Option<PathBuf>,
    /// PEM file with the CA certificate of the database; sslmode=require and a URL without sslmode then mean
    /// verify-full
    #[arg(long, env = env::DATABASE_CA_FILE, value_name = "FILE")]
    pub(crate) database_ca_file: Option<PathBuf>,
    /// Name of the queue
    #[arg(long, env = env::QUEUE)]
    pub(crate) queue: Option<String>,
    /// Name of this instance in the database and in logs [default: host name and process id]
    #[arg(long, env = env::INSTANCE_NAME)]
    pub(crate) name: Option<String>,
    /// UID of the pod that this worker runs in, if any: the operator ends its leases when the pod has ended
    #[arg(long, env = env::POD_UID, value_name = "UID")]
    pub(crate) pod_uid: Option<String>,
    /// Slots of this instance: how many tasks it runs at a time [default: 10]
    #[arg(long, env = env::SLOTS, value_name = "N")]
    pub(crate) slots: Option<u32>,
    #[arg(long, env = env::HANDLER_URL, value_name = "URL", help = HANDLER_URL_HELP)]
    pub(crate) handler_url: Option<String>,
    /// Address to serve /healthz, /readyz and /metrics on [default: 127.0.0.1:9464]
    #[arg(long, env = env::LISTEN, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// How long running tasks may take to finish after SIGTERM, SIGINT or SIGHUP [default: 25s]
    #[arg(long, env = env::DRAIN_GRACE, value_name = "DURATION")]
    pub(crate) drain_grace: Option<Dur>,
    /// Log format: json or text [default: json]
    #[arg(long, env = env::LOG_FORMAT, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    #[arg(long, env = env::OTLP_ENDPOINT, value_name = "URL", help = OTLP_ENDPOINT_HELP)]
    pub(crate) otlp_endpoint: Option<String>,
    /// Poll for tasks once a second and do not listen for NOTIFY
    #[arg(long)]
    pub(crate) poll_only: bool,
}

// Without clap's `env`, which would not tell a flag from a variable: see find_url in args.rs.
const DATABASE_URL_FILE_HELP: &str =
    "File with the connection string [env: ROWLOCK_DATABASE_URL_FILE, which wins over ROWLOCK_DATABASE_URL]";
const OTLP_ENDPOINT_HELP: &str =
    "URL of a collector for traces, such as http://collector:4318 [default: traces are not exported]";
const HANDLER_URL_HELP: &str = "URL of the handler [default: http://127.0.0.1:8080/tasks]";

impl Settings {
    /// These settings, and those of `file` where a setting is missing.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            database_url_file: self.database_url_file.or(file.database_url_file),
            database_ca_file: self.database_ca_file.or(file.database_ca_file),
            queue: self.queue.or(file.queue),
            name: self.name.or(file.name),
            pod_uid: self.pod_uid.or(file.pod_uid),
            slots: self.slots.or(file.slots),
            handler_url: self.handler_url.or(file.handler_url),
            listen: self.listen.or(file.listen),
            drain_grace: self.drain_grace.or(file.drain_grace),
            log_format: self.log_format.or(file.log_format),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
            poll_only: self.poll_only || file.poll_only,
        }
    }
}

/// Reads the YAML file of `--config`.
pub(crate) fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let wrong = |what: String| ConfigError(format!("--config {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if text.trim().is_empty() {
        return Ok(Settings::default());
    }
    serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))
}
