//! The operator process: parses and runs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rowlock_daemon::{LogLines, Signals};
use rowlock_operator::kubernetes::{Config, run};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// As for a wrong flag.
const MISCONFIGURED: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(error) = rowlock_daemon::check_environment() {
        // Where nobody hears it the exit code says it.
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
    let (client, host) = client().await.map_err(|error| format!("no way to a cluster: {error}"))?;
    config.api_server = host;
    let stop = CancellationToken::new();
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        let signal = signals.next().await;
        tracing::info!(signal, "ending");
        on_signal.cancel();
    });
    run(config, client, stop).await.map_err(|error| error.to_string())
}

/// And the host where it leads.
async fn client() -> Result<(kube::Client, Option<String>), Box<dyn std::error::Error>> {
    let mut config = kube::Config::infer().await?;
    config.read_timeout = Some(SILENCE_LONGEST);
    let host = config.cluster_url.host().map(str::to_owned);
    Ok((kube::Client::try_from(config)?, host))
}

/// Longer than between two bookmarks of a watch (a minute): from an API server that says nothing for so
/// long nothing is to be expected.
const SILENCE_LONGEST: Duration = Duration::from_secs(90);

/// What follows from a broken connection we say ourselves.
const DEFAULT_FILTER: &str = "info,sqlx=error,sqlx_core=error,kube_client=off";

/// `RUST_LOG` chooses what is logged, `info` without it.
fn install_logging(format: &str) {
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = chosen.or_else(|| DEFAULT_FILTER.parse().ok()).unwrap_or_default();
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(LogLines::new).with_ansi(colours);
    let lines = if format == "json" { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    // Fails only when somebody else installed one first.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
