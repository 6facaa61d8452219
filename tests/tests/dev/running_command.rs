//! A command that runs until it gets a signal, and its output.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{TIMEOUT, eventually};

/// How long the pipe of an ended command may be silent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running `rowlock dev`, or another command that runs until it gets a signal.
pub(crate) struct Dev {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Dev {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let (reader, writer) = pipe().unwrap();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        // This closes this process's ends of the pipe.
        drop(command);
        Self { child, lines: read_lines(reader), heard: Vec::new() }
    }

    /// Waits until a line with this text is printed and returns it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + TIMEOUT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => {
                    self.heard.push(line.clone());
                    return line;
                }
                Ok(line) => self.heard.push(line),
                Err(error) => panic!("{text:?} was not printed ({error}), but\n{}", self.heard.join("\n")),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end. Returns the exit code, or -1 if a signal ended it, and all its output.
    pub(crate) fn ended(mut self) -> (i32, String) {
        let status = eventually("it ends", || self.child.try_wait().unwrap());
        // Its last output is in the pipe; a process that it left behind would keep the pipe open.
        while let Ok(line) = self.lines.recv_timeout(LAST_WORDS) {
            self.heard.push(line);
        }
        (status.code().unwrap_or(-1), self.heard.join("\n"))
    }

    /// Sends Ctrl-C and expects a clean end.
    pub(crate) fn stop(self) -> String {
        self.send(Signal::SIGINT);
        let (code, output) = self.ended();
        assert_eq!(code, 0, "{output}");
        output
    }

    /// Sends SIGKILL and waits for its end.
    pub(crate) fn kill9(self) {
        self.send(Signal::SIGKILL);
        let (code, output) = self.ended();
        assert_eq!(code, -1, "{output}");
    }
}

/// Processes of a failed test would run for ever.
impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(reader: PipeReader) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
