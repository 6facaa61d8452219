//! Parses, runs, ends with the documented exit code.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rowlock::run(std::env::args_os()).await
}
