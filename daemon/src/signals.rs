//! The signals that ask a program to end.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a closed terminal, `systemctl reload`), caught from the making of
/// this value on.
///
/// A program that was started with SIGHUP ignored, by `nohup`, goes on ignoring it. SIGUSR1 and SIGUSR2,
/// which would end it at once, mean nothing here and are ignored. Not caught: SIGQUIT, which asks for the end
/// at once.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    user: [Signal; 2],
}

impl Signals {
    /// Fails where the system lets no handler be installed.
    pub fn listen() -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if is_ignored(hangup) { None } else { Some(signal(hangup)?) },
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for the next one that asks for the end, and answers with its name.
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
            tracing::info!("{ignored} means nothing to this program and is ignored; SIGTERM ends it");
        }
    }
}

/// Whether the program was started so. Only Linux tells; elsewhere the answer is no.
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
    async fn a_hang_up_asks_for_the_end_and_the_users_signals_do_not() {
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
    fn a_signal_that_rust_ignores_is_seen_to_be_ignored() {
        assert!(is_ignored(SignalKind::pipe()), "Rust's own start-up ignores it");
        assert!(!is_ignored(SignalKind::terminate()));
    }
}
