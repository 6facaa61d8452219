//! Runs a worker process, for `rowlock-worker` and `rowlock worker`.

use std::process::ExitCode;

use crate::{Config, ExitReason, Shutdown, Worker, install_logging};

/// The instance has lost its leases for good. A supervisor must start a new process.
const FENCED: u8 = 3;

/// Installs logging and runs the worker until a signal stops it. The exit code is 0 after a drain, 3 after a
/// fence and 1 after a failure.
pub async fn run_process(config: Config) -> ExitCode {
    install_logging(config.log_format);
    rowlock_daemon::raise_open_files();
    let stop = Shutdown::new();
    let ended = tokio::select! {
        ended = Worker::from_config(config).run(stop.clone()) => ended.map_err(|error| error.to_string()),
        error = stop.on_signals() => Err(format!("cannot listen for signals: {error}")),
    };
    match ended {
        Ok(ExitReason::Drained) => ExitCode::SUCCESS,
        Ok(ExitReason::Fenced(_)) => ExitCode::from(FENCED),
        Err(error) => {
            tracing::error!(%error, "the worker failed");
            ExitCode::FAILURE
        }
    }
}
