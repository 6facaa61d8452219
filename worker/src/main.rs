//! The worker process: parses, installs, runs.

use std::process::ExitCode;

use rowlock_worker::{Args, Ended, Stop, Worker, install_logging};

const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;
/// The leases are lost for good: a supervisor starts a fresh process.
const FENCED: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let config = match Args::of_process() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("rowlock-worker: {error}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    install_logging(config.log_format);
    let stop = Stop::new();
    let ended = tokio::select! {
        ended = Worker::from_config(config).run(stop.clone()) => ended.map_err(|error| error.to_string()),
        error = stop.on_signals() => Err(format!("cannot listen for signals: {error}")),
    };
    match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Fenced(_)) => ExitCode::from(FENCED),
        Err(error) => {
            tracing::error!(%error, "the worker failed");
            ExitCode::from(FAILED)
        }
    }
}
