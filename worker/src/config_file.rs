//! The YAML file behind `--config`: the flags' names without their dashes in front.

use std::path::Path;

use serde::Deserialize;

use crate::error::ConfigError;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    pub(crate) database_url_file: Option<std::path::PathBuf>,
    pub(crate) database_ca_file: Option<std::path::PathBuf>,
    pub(crate) queue: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) slots: Option<u32>,
    pub(crate) handler_url: Option<String>,
    pub(crate) listen: Option<std::net::SocketAddr>,
    pub(crate) drain_grace: Option<rowlock_crds::Dur>,
    pub(crate) log_format: Option<String>,
    pub(crate) no_listen: Option<bool>,
}

pub(crate) fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let wrong = |what: String| ConfigError(format!("--config {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if text.trim().is_empty() {
        return Ok(ConfigFile::default());
    }
    serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))
}
