//! How far ahead partitions exist, and how old the oldest one is.

use std::sync::{Mutex, Once, PoisonError};

use prometheus::{Gauge, Registry};
use rowlock_queue::PartitionStats;
use tokio::time::Instant;

/// Ages of partitions at the last reading, adjusted by the time since. The gauges are absent until the first
/// reading.
pub(super) struct Partitions {
    left: Gauge,
    oldest: Gauge,
    last_seen: Mutex<Option<(Instant, PartitionStats)>>,
    registered: Once,
}

impl Partitions {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let oldest = "Time since the oldest partition of tasks ended";
        Ok(Self {
            left: Gauge::new("partitions_left_seconds", "Time until the last existing partition ends")?,
            oldest: Gauge::new("oldest_partition_age_seconds", oldest)?,
            last_seen: Mutex::default(),
            registered: Once::new(),
        })
    }

    pub(super) fn note(&self, stats: PartitionStats) {
        *self.last_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), stats));
    }

    pub(super) fn update(&self, registry: &Registry) {
        let Some((at, stats)) = *self.last_seen.lock().unwrap_or_else(PoisonError::into_inner) else {
            return;
        };
        let since = at.elapsed().as_secs_f64();
        self.left.set(stats.left_seconds - since);
        // It is below 0 while the only partition has not ended. An age is not.
        self.oldest.set((stats.oldest_seconds + since).max(0.0));
        self.registered.call_once(|| {
            for gauge in [&self.left, &self.oldest] {
                if let Err(error) = registry.register(Box::new(gauge.clone())) {
                    tracing::error!(%error, "cannot register a metric of partitions");
                }
            }
        });
    }
}
