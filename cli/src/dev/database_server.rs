//! The PostgreSQL server of `rowlock dev`: a bundled one, or an existing one.

use super::data_dir::DataDir;
use crate::failure::Failure;
use rowlock_local::postgres::{Server, ServerConfig};
use std::path::Path;
use std::time::Duration;

/// How long to try to connect. The bundled server already answers; an existing one may still be starting.
const BUNDLED_TIMEOUT: Duration = Duration::from_secs(10);
const EXISTING_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the bundled server is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) enum DatabaseServer {
    Bundled(Box<Server>),
    Existing(String),
}

impl DatabaseServer {
    /// Uses the existing server at `url`, or starts the bundled one.
    pub(super) async fn start(
        url: Option<String>,
        folder: &DataDir,
        exe: &Path,
        version: &str,
        port: Option<u16>,
    ) -> Result<Self, Failure> {
        if let Some(url) = url {
            return Ok(Self::Existing(url));
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
            Self::Existing(url) => url.clone(),
        }
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
