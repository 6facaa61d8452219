//! kubectl and helm as a user runs them.

use std::path::Path;
use std::process::Command;

use rowlock_tests::run_with_input;

use crate::cluster::{OPERATOR, cluster};

/// A command's output, or its error.
pub(crate) type Said = Result<String, String>;

/// Runs kubectl with this standard input.
pub(crate) fn kubectl_with(args: &[&str], input: &str) -> Said {
    run(&cluster().kubectl, &cluster().kubeconfig, args, input)
}

/// What kubectl printed.
///
/// # Panics
/// If it fails.
pub(crate) fn kubectl(args: &[&str]) -> String {
    kubectl_with(args, "").unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
}

/// The operator's replica that is the leader.
pub(crate) fn leader() -> String {
    let holder = "jsonpath={.spec.holderIdentity}";
    tokio::task::block_in_place(|| {
        kubectl(&["get", "lease", "rowlock-operator", "-n", OPERATOR, "-o", holder])
    })
}

/// What helm printed.
///
/// # Panics
/// If it fails.
pub(crate) fn helm(args: &[&str]) -> String {
    let message = run(&cluster().helm, &cluster().kubeconfig, args, "");
    message.unwrap_or_else(|error| panic!("helm {args:?}: {error}"))
}

pub(crate) fn run(program: &Path, kubeconfig: &Path, args: &[&str], input: &str) -> Said {
    let mut command = Command::new(program);
    command.env("KUBECONFIG", kubeconfig).args(args);
    let output = run_with_input(&mut command, input).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
