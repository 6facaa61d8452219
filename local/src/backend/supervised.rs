//! A process of an instance. If it ends unexpectedly, it is started again after an exponential back-off.

use crate::process::{Launch, Process};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The back-off before the first restart. It doubles with each one: a handler that does not compile must not
/// be started many times a second.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// A process that ran this long is healthy, so its next back-off is the first one again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// Keeps the shift from overflowing; the longest back-off is reached long before.
const MOST_DOUBLINGS: u32 = 16;

pub(super) struct Supervised {
    what: &'static str,
    instance: String,
    launch: Launch,
    process: Option<Process>,
    started: Instant,
    crashes: u32,
    start_at: Instant,
}

impl Supervised {
    pub(super) fn new(what: &'static str, instance: &str, launch: Launch) -> Self {
        let now = Instant::now();
        let instance = instance.to_owned();
        Self { what, instance, launch, process: None, started: now, crashes: 0, start_at: now }
    }

    pub(super) fn ensure_running(&mut self) {
        if let Some(process) = &mut self.process {
            match process.poll() {
                Ok(None) => return,
                Ok(Some(status)) => self.crashed(&format!("ended by itself ({status})")),
                Err(error) => self.crashed(&format!("cannot be watched: {error}")),
            }
        }
        if self.start_at <= Instant::now() {
            match Process::start(&self.launch) {
                Ok(process) => {
                    self.process = Some(process);
                    self.started = Instant::now();
                }
                Err(error) => self.crashed(&format!("cannot be started: {error}")),
            }
        }
    }

    pub(super) fn has_stopped(&mut self) -> bool {
        let Some(process) = &mut self.process else { return true };
        process.begin_stop();
        match process.poll() {
            Ok(None) => return false,
            Ok(Some(_)) => (),
            Err(error) => tracing::warn!(instance = %self.instance, %error, "cannot watch a process end"),
        }
        self.process = None;
        true
    }

    /// Stops it at once; running work is not finished.
    pub(super) fn hurry(&mut self) {
        if let Some(process) = &mut self.process {
            process.hurry();
        }
    }

    /// Whether it has ended and another program has taken its port: it could not start there again.
    pub(super) fn has_lost_port(&self, port: u16) -> bool {
        let ended = self.process.is_none() && self.crashes > 0;
        ended && TcpListener::bind(("127.0.0.1", port)).is_err()
    }

    fn crashed(&mut self, how: &str) {
        if self.process.take().is_some() && self.started.elapsed() > HEALTHY_AFTER {
            self.crashes = 0;
        }
        let backoff =
            FIRST_BACKOFF.saturating_mul(1 << self.crashes.min(MOST_DOUBLINGS)).min(LONGEST_BACKOFF);
        self.crashes = self.crashes.saturating_add(1);
        self.start_at = Instant::now() + backoff;
        let Self { what, instance, .. } = self;
        tracing::warn!("the {what} of {instance} {how}; starting it again in {} ms", backoff.as_millis());
    }
}
