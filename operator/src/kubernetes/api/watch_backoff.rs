//! How long a broken watch waits before it is restarted.

use std::time::Duration;

use kube::runtime::utils::Backoff;

use crate::jitter::jittered;

/// Back-off before a broken watch is restarted. It is short, so that newly granted rights take effect soon.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A back-off that doubles, with jitter: all watches of an API server that restarts break at once.
pub(super) struct WatchBackoff(Duration);

impl Default for WatchBackoff {
    fn default() -> Self {
        Self(MIN_BACKOFF)
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let next = (self.0 * 2).min(MAX_BACKOFF);
        Some(jittered(std::mem::replace(&mut self.0, next)))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = MIN_BACKOFF;
    }
}
