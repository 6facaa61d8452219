//! The program `rowlock`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rowlock::run(std::env::args_os()).await
}
