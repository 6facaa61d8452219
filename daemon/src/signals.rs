//! The signals that ask a program to end.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a closed terminal, `systemctl reload`).
///
/// A program started by `nohup` continues to ignore SIGHUP. SIGUSR1 and SIGUSR2, which would end the program
/// by default, are ignored. SIGQUIT is not caught and ends the program at once.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    user: [Signal; 2],
}

impl Signals {
    /// Catches the signals from now on. Fails if the system refuses a signal handler.
    pub fn listen() -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if is_ignored(hangup) { None } else { Some(signal(hangup)?) },
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for the next signal that asks the program to end, and returns its name.
    pub async fn next(&mut self) -> &'static str {
        let [user1, user2] = &mut self.user;
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = hangup => return "SIGHUP",
                _ = user1.recv() => "SIGUSR1",
                _ = user2.recv() => "SIGUSR2",
            };
            tracing::info!("ignoring {ignored}, which has no meaning here; SIGTERM ends this program");
        }
    }
}

/// Whether the program was started with the signal ignored. Only Linux reports it; elsewhere the answer is
/// no.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hangup_ends_the_program_and_user_signals_do_not() {
        use nix::sys::signal::{Signal, raise};
        let mut signals = Signals::listen().unwrap();
        // The tests themselves may have been started by `nohup`.
        let last = if signals.hangup.is_some() { Signal::SIGHUP } else { Signal::SIGTERM };
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2, last] {
            raise(signal).unwrap();
        }
        assert_eq!(signals.next().await, last.as_str());
    }

    #[test]
    fn a_signal_that_is_ignored_from_the_start_is_recognised() {
        assert!(is_ignored(SignalKind::pipe()), "Rust's runtime ignores SIGPIPE");
        assert!(!is_ignored(SignalKind::terminate()));
    }
}
