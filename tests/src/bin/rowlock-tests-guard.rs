//! `rowlock` under another name, built with the tests, so that a test server has a guard without a separate
//! build of the command line.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    rowlock::run(std::env::args_os()).await
}
