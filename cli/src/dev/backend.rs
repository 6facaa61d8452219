//! The server `rowlock dev` uses: an own one, or the user's.

use super::folder::Folder;
use crate::failure::Failure;
use rowlock_local::postgres::{Server, ServerConfig};
use std::path::Path;
use std::time::Duration;

/// The own server answers already; one of the user's may be starting beside us.
const OWN_PATIENCE: Duration = Duration::from_secs(10);
const YOURS_PATIENCE: Duration = Duration::from_secs(30);

/// How often the own server is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) enum Backend {
    Own(Box<Server>),
    Yours(String),
}

impl Backend {
    /// The user's as it is, or an own one, started.
    pub(super) async fn start(
        url: Option<String>,
        folder: &Folder,
        exe: &Path,
        version: &str,
        port: Option<u16>,
    ) -> Result<Self, Failure> {
        if let Some(url) = url {
            return Ok(Self::Yours(url));
        }
        let config = ServerConfig {
            version: version.to_owned(),
            port,
            guard: Some(exe.to_owned()),
            ..ServerConfig::new(folder.path())
        };
        Ok(Self::Own(Box::new(Server::start(&config).await?)))
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Own(server) => server.url("postgres"),
            Self::Yours(url) => url.clone(),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Own(_) => OWN_PATIENCE,
            Self::Yours(_) => YOURS_PATIENCE,
        }
    }

    /// Starts the own server again when it ended by itself. Returns only when that fails.
    pub(super) async fn tend(&mut self) -> Failure {
        let Self::Own(server) = self else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if server.has_ended() {
                tracing::warn!("PostgreSQL ended by itself; starting it again");
                if let Err(error) = server.restart().await {
                    return error.into();
                }
            }
        }
    }

    pub(super) async fn stop(&mut self) {
        if let Self::Own(server) = self
            && let Err(error) = server.stop().await
        {
            tracing::warn!(%error, "cannot watch the server end");
        }
    }
}
