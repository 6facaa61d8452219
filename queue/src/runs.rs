//! What instances report of the runs that ended lately.

/// The runs that ended in the last two minutes, of one instance or of all live instances of a queue. A run is
/// one call of the handler. Runs that were snoozed, released, cancelled or interrupted do not count, and
/// neither do those whose lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Runs {
    /// Runs that completed their task.
    pub completed: u64,
    /// How long these took together, in seconds.
    pub seconds: f64,
    /// The sum of the squares of how long each took, in seconds squared.
    pub seconds_squared: f64,
    /// Runs that failed or timed out.
    pub failed: u64,
}

impl Runs {
    /// How long a completed run took on average, in seconds. `None` while none has completed.
    #[must_use]
    pub fn mean_seconds(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "past 2^53 runs an error of one does not matter")]
        (self.completed > 0).then(|| self.seconds / self.completed as f64)
    }
}
