//! The PostgreSQL server of `rowlock dev`: a bundled one, or an existing one.

use super::data_dir::DataDir;
use crate::database;
use crate::failure::Failure;
use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::Connect;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long to try to connect. The bundled server already answers; an existing one may still be starting.
const BUNDLED_TIMEOUT: Duration = Duration::from_secs(10);
const EXISTING_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the bundled server is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) enum DatabaseServer {
    Bundled(Box<Server>),
    Existing(Existing),
}

/// A server that `rowlock dev` did not start.
pub(super) struct Existing {
    url: String,
    /// The file of its CA certificate, and what it contained.
    ca: Option<(PathBuf, Arc<str>)>,
}

impl Existing {
    pub(super) fn new(url: String, ca_file: Option<PathBuf>) -> Result<Self, Failure> {
        let ca = match ca_file.or_else(database::ca_file_of_environment) {
            None => None,
            Some(file) => {
                let pem = database::read_ca(&file)?;
                // Workers start in other folders.
                Some((std::path::absolute(file)?, pem))
            }
        };
        Ok(Self { url, ca })
    }
}

impl DatabaseServer {
    /// Uses the existing server, or starts the bundled one.
    pub(super) async fn start(
        existing: Option<Existing>,
        folder: &DataDir,
        exe: &Path,
        version: &str,
        port: Option<u16>,
    ) -> Result<Self, Failure> {
        if let Some(existing) = existing {
            return Ok(Self::Existing(existing));
        }
        let config = ServerConfig {
            version: version.to_owned(),
            port,
            guard: Some(exe.to_owned()),
            ..ServerConfig::new(folder.path())
        };
        Ok(Self::Bundled(Box::new(Server::start(&config).await?)))
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Bundled(server) => server.url("postgres"),
            Self::Existing(existing) => existing.url.clone(),
        }
    }

    /// The file of its CA certificate.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        match self {
            Self::Existing(Existing { ca: Some((file, _)), .. }) => Some(file.clone()),
            _ => None,
        }
    }

    pub(super) fn connect_options(&self) -> Connect {
        let ca_pem = match self {
            Self::Existing(Existing { ca: Some((_, pem)), .. }) => Some(Arc::clone(pem)),
            _ => None,
        };
        Connect { ca_pem, ..database::connect_options(self.url()) }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        match self {
            Self::Bundled(_) => BUNDLED_TIMEOUT,
            Self::Existing(_) => EXISTING_TIMEOUT,
        }
    }

    /// Restarts the bundled server when it has ended by itself. Returns only if a restart fails.
    pub(super) async fn supervise(&mut self) -> Failure {
        let Self::Bundled(server) = self else { return std::future::pending().await };
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            if server.has_ended() {
                tracing::warn!("PostgreSQL ended unexpectedly; restarting it");
                if let Err(error) = server.restart().await {
                    return error.into();
                }
            }
        }
    }

    pub(super) async fn stop(&mut self) {
        if let Self::Bundled(server) = self
            && let Err(error) = server.stop().await
        {
            tracing::warn!(%error, "cannot stop PostgreSQL");
        }
    }
}
