//! `rowlock` under another name, so that a server of the tests has a guard without the command line being
//! built on its own.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    rowlock::run(std::env::args_os()).await
}
