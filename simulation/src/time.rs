//! Moments and durations of the simulation: whole microseconds, so that sums are exact and order is total.

use std::time::Duration;

/// A moment since the begin of the load, or a duration, in microseconds.
pub(crate) type Micros = u64;

/// A second.
pub(crate) const SECOND: Micros = 1_000_000;

/// No load lasts longer than this many seconds (a century): what is beyond would not fit.
const MOST_SECONDS: f64 = 3.2e9;

/// Seconds as microseconds. What is negative or no number is zero.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(crate) fn micros(seconds: f64) -> Micros {
    (seconds.clamp(0.0, MOST_SECONDS) * 1e6).round() as Micros
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are longer than any load")]
pub(crate) fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

/// As the decisions of the operator want it.
pub(crate) fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros)
}
