//! Tests against a real Postgres, and the history checker
//!
//! Each test has its own database, copied from a migrated template on one server per test process:
//! [`TestDb`]. A test plays an instance with [`TestInstance`].

pub mod alertmanager;
pub mod alerts;
pub mod dashboards;
mod database;
pub mod doc_blocks;
pub mod history;
mod observe;
pub mod prometheus;
pub mod promql;
pub mod server;
mod test_instance;

pub use database::{TestDb, declaration};
pub use observe::observe;
pub use test_instance::{TestInstance, settlements};

/// The root of the checkout, found at run time: a cached build may come from another checkout.
///
/// # Panics
///
/// Outside `cargo test`, which starts tests in their package's folder.
#[must_use]
pub fn checkout() -> std::path::PathBuf {
    let package = std::env::current_dir().expect("the current folder");
    package.parent().expect("the package is a folder of the checkout").to_owned()
}

/// The arguments of the kubectl command with this verb that a condition prints between backticks.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn printed_command(message: &str, verb: &str) -> Vec<String> {
    let start = format!("kubectl {verb} ");
    let command = message.split('`').find(|part| part.starts_with(&start)).expect(message);
    command.split_whitespace().skip(1).map(|word| word.replace('\'', "")).collect()
}

/// Runs a program to its end with this standard input.
///
/// # Errors
///
/// If it cannot be started or waited for.
pub fn run_with_input(
    command: &mut std::process::Command,
    input: &str,
) -> std::io::Result<std::process::Output> {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that failed immediately does not read it.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

/// Whether each test may take minutes (`make soak`).
#[must_use]
pub fn soaks() -> bool {
    std::env::var_os("ROWLOCK_TEST_SOAK").is_some()
}
