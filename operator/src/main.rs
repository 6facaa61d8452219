//! The operator process: parses and runs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rowlock_daemon::{LogLines, Signals, log_filter};
use rowlock_operator::kubernetes::{Config, run};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// The exit code for invalid configuration: the same as for an invalid flag.
const MISCONFIGURED: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(error) = rowlock_daemon::check_environment() {
        // If stderr is closed, only the exit code reports the error.
        let _ = writeln!(std::io::stderr(), "rowlock-operator: {error}");
        return ExitCode::from(MISCONFIGURED);
    }
    install_logging(&config.log_format);
    rowlock_daemon::raise_open_files();
    match work(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the operator failed");
            ExitCode::FAILURE
        }
    }
}

async fn work(mut config: Config) -> Result<(), String> {
    let (client, host) = client().await.map_err(|error| format!("cannot find an API server: {error}"))?;
    config.api_server = host;
    let stop = CancellationToken::new();
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        let signal = signals.next().await;
        tracing::info!(signal, "stopping");
        on_signal.cancel();
    });
    run(config, client, stop).await.map_err(|error| error.to_string())
}

/// A client for the API server, and the API server's host.
async fn client() -> Result<(kube::Client, Option<String>), Box<dyn std::error::Error>> {
    let mut config = kube::Config::infer().await?;
    config.read_timeout = Some(READ_TIMEOUT);
    let host = config.cluster_url.host().map(str::to_owned);
    Ok((kube::Client::try_from(config)?, host))
}

/// How long an API server may send nothing before the client closes the connection. Longer than the minute
/// between two bookmarks of a watch.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// The default of `RUST_LOG`. The operator itself logs what the client says about broken connections.
const DEFAULT_FILTER: &str = "info,kube_client=off";

/// Logs to stderr, filtered by `RUST_LOG` or else by [`DEFAULT_FILTER`].
fn install_logging(format: &str) {
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = chosen.or_else(|| log_filter(DEFAULT_FILTER).parse().ok()).unwrap_or_default();
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(LogLines::new).with_ansi(colours);
    let lines = if format == "json" { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    // Fails only if another subscriber is already installed.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
