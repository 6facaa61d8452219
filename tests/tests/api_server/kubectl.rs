//! kubectl, as a user runs it.

use std::process::{Command, Output};

use rowlock_tests::run_with_input;
use serde_json::Value;

use crate::server::{Server, chart, server};

/// What kubectl printed if it succeeded, else its error.
#[derive(Debug)]
pub(crate) struct KubectlOutput {
    pub(crate) succeeded: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs kubectl with this standard input.
pub(crate) fn kubectl_with(args: &[&str], input: &str) -> KubectlOutput {
    output_of(run(server(), args, input))
}

pub(crate) fn kubectl(args: &[&str]) -> KubectlOutput {
    kubectl_with(args, "")
}

/// What kubectl printed.
///
/// # Panics
/// If kubectl fails.
pub(crate) fn ok(args: &[&str], input: &str) -> String {
    let message = kubectl_with(args, input);
    assert!(message.succeeded, "kubectl {args:?}: {}", message.err);
    message.out
}

/// What kubectl printed as JSON.
pub(crate) fn json(args: &[&str], input: &str) -> Value {
    let args = [args, &["-o", "json"]].concat();
    serde_json::from_str(&ok(&args, input)).unwrap()
}

/// Creates a namespace for the test and returns its name.
pub(crate) fn namespace(name: &str) -> String {
    ok(&["create", "namespace", name], "");
    name.to_owned()
}

/// Whether the server answers and has finished starting; if not, its answer.
pub(crate) fn ready(server: &Server) -> Result<(), String> {
    let message = output_of(run(server, &["get", "--raw", "/readyz"], ""));
    if message.succeeded { Ok(()) } else { Err(message.err) }
}

/// Applies the chart and waits until the server has the definition.
pub(crate) fn install(server: &Server) {
    let chart = chart();
    let chart = chart.to_str().unwrap();
    for args in [
        &["apply", "-f", chart] as &[&str],
        &["wait", "--for=condition=Established", "--timeout=60s", "crd/taskqueues.rowlock.dev"],
    ] {
        let message = output_of(run(server, args, ""));
        assert!(message.succeeded && message.err.is_empty(), "kubectl {args:?}: {}", message.err);
    }
}

fn run(server: &Server, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(&server.kubectl);
    command.arg("--kubeconfig").arg(&server.kubeconfig).arg("--cache-dir").arg(server.folder.join("cache"));
    run_with_input(command.args(args), input).unwrap()
}

fn output_of(output: Output) -> KubectlOutput {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    KubectlOutput { succeeded: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}
