//! `rowlock worker`: the same as the program `rowlock-worker`, for machines that have only `rowlock`.

use crate::failure::Failure;
use crate::output::Output;
use rowlock_worker::{Args, run_process};
use std::process::ExitCode;

pub(crate) async fn run(args: Args, output: Output) -> ExitCode {
    match args.resolve() {
        Ok(config) => run_process(config).await,
        Err(error) => {
            let failure = Failure::usage(error.to_string());
            output.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}
