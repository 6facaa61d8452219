//! How the operator's process reacts to signals. No API server answers here. That it releases its Lease is
//! tested with a real one.
#![cfg(feature = "kube")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A kubeconfig for a port on which no server listens.
const NOWHERE: &str = "apiVersion: v1
kind: Config
current-context: a
clusters: [{ name: a, cluster: { server: 'http://127.0.0.1:1' } }]
contexts: [{ name: a, context: { cluster: a, user: a } }]
users: [{ name: a, user: {} }]
";

struct Operator {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Operator {
    /// With the default action of SIGHUP, even if the tests were started with `nohup`.
    fn start(name: &str) -> Self {
        let kubeconfig = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&kubeconfig, NOWHERE).unwrap();
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_rowlock-operator")]);
        command.args(["--worker-image", "a", "--listen", "127.0.0.1:0", "--lease-namespace", "a"]);
        command.env("KUBECONFIG", kubeconfig).env_remove("RUST_LOG");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    fn wait_for(&mut self, text: &str) {
        let mut lines = Vec::new();
        for line in self.log.by_ref().map_while(Result::ok) {
            if line.contains(text) {
                return;
            }
            lines.push(line);
        }
        panic!("{text:?} is not in the log:\n{}", lines.join("\n"));
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

/// Otherwise the process of a failed test would run on.
impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Before, SIGHUP killed it at once: exit code 129, and its Lease was not released.
#[test]
fn an_operator_ends_in_order_when_its_terminal_closes() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        let mut operator = Operator::start(signal.as_str());
        operator.wait_for("the uid of the cluster cannot be read");
        for ignored in [Signal::SIGUSR1, Signal::SIGUSR2] {
            operator.send(ignored);
            operator.wait_for(&format!("ignoring {ignored}"));
        }
        operator.send(signal);
        operator.wait_for(&format!("\"signal\":\"{signal}\""));
        assert_eq!(operator.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}
