//! A process of an instance: started again when it ends by itself, later each time.

use crate::process::{Launch, Process};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The pause before the first new start; it doubles with each, as a handler that does not compile would
/// otherwise be started all day.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who ran so long was well, and starts anew with the first pause.
const WELL_AFTER: Duration = Duration::from_mins(1);

/// The doubling ends here: the longest pause is reached long before.
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

    pub(super) fn tend(&mut self) {
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

    /// Ends without finishing anything, if it runs.
    pub(super) fn hurry(&mut self) {
        if let Some(process) = &mut self.process {
            process.hurry();
        }
    }

    /// Whether it ended and somebody else has taken its port: another start there would be in vain.
    pub(super) fn is_displaced_from(&self, port: u16) -> bool {
        let ended = self.process.is_none() && self.crashes > 0;
        ended && TcpListener::bind(("127.0.0.1", port)).is_err()
    }

    fn crashed(&mut self, how: &str) {
        if self.process.take().is_some() && self.started.elapsed() > WELL_AFTER {
            self.crashes = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.crashes.min(MOST_DOUBLINGS)).min(LONGEST_PAUSE);
        self.crashes = self.crashes.saturating_add(1);
        self.start_at = Instant::now() + pause;
        let Self { what, instance, .. } = self;
        tracing::warn!("the {what} of {instance} {how}; starting it again in {} ms", pause.as_millis());
    }
}
