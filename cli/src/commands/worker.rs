//! `rowlock worker`: the same as the binary `rowlock-worker`, for machines that have only this one.

use crate::failure::Failure;
use crate::output::Output;
use rowlock_worker::{Args, Ended, Stop, Worker, install_logging};
use std::process::ExitCode;

/// The leases are lost for good: a supervisor starts a fresh process. The code of `rowlock-worker`.
const FENCED: u8 = 3;

pub(crate) async fn run(args: Args, output: Output) -> ExitCode {
    let config = match args.resolve() {
        Ok(config) => config,
        Err(error) => {
            let failure = Failure::usage(error.to_string());
            output.failure(&failure);
            return ExitCode::from(failure.code);
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
            ExitCode::FAILURE
        }
    }
}
