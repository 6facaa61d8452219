//! The operator as a process: what signals mean to it. That it gives its Lease back when it ends is tested
//! against a real API server; here none answers.
#![cfg(feature = "kube")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Leads to a port where nobody listens.
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
    /// With the signals' own meaning, whatever the tests were started with.
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
        let mut heard = Vec::new();
        for line in self.log.by_ref().map_while(Result::ok) {
            if line.contains(text) {
                return;
            }
            heard.push(line);
        }
        panic!("{text:?} was not said, but\n{}", heard.join("\n"));
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

/// What a failed test leaves would go on for ever.
impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Before `Signals`, a hang-up ended it at once, with its Lease still held, and 129.
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
