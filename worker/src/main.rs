//! The program `rowlock-worker`.

use std::io::Write;
use std::process::ExitCode;

use rowlock_worker::{Args, run_process};

const MISCONFIGURED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match Args::of_process() {
        Ok(config) => run_process(config).await,
        Err(error) => {
            // If standard error is closed, the exit code still shows the failure.
            let _ = writeln!(std::io::stderr(), "rowlock-worker: {error}");
            ExitCode::from(MISCONFIGURED)
        }
    }
}
