//! What becomes of the tasks and pods of a queue, over time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rowlock_simulation::Sample;
use tokio::time::Instant;

use super::PER_POD;

/// Shared by the loops that enqueue, run pods and take samples.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Noted>);

#[derive(Debug, Default)]
pub(super) struct Noted {
    began: Option<Instant>,
    /// Tasks that have not started, and since when they wait.
    waiting: BTreeMap<usize, Instant>,
    /// Of each task from the moment before it was enqueued to its first start or the end, in seconds.
    pub(super) waits: Vec<f64>,
    pub(super) not_started: usize,
    /// The Deployment's `spec.replicas`.
    wanted: u32,
    /// Pods that exist, and those that are ready.
    pods: u32,
    ready: u32,
    running: u64,
    /// When a pod was first asked for and ready, from the begin.
    pub(super) first_asked: Option<Duration>,
    pub(super) first_ready: Option<Duration>,
    sampled: Option<Instant>,
    pub(super) pod_seconds: f64,
    pub(super) samples: Vec<Sample>,
}

impl Noted {
    /// The slots of pods times the hours from their creation until they were gone.
    pub(super) fn worker_hours(&self) -> f64 {
        self.pod_seconds * f64::from(PER_POD) / 3600.0
    }

    fn since_begin(&self) -> Option<Duration> {
        Some(self.began?.elapsed())
    }
}

impl Progress {
    pub(super) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) {
        let now = Some(Instant::now());
        let mut noted = self.noted();
        (noted.began, noted.sampled) = (now, now);
    }

    pub(super) fn enqueued(&self, tasks: Range<usize>) {
        let now = Instant::now();
        self.noted().waiting.extend(tasks.map(|task| (task, now)));
    }

    /// A task that is tried again after a lost lease has started before.
    pub(super) fn started(&self, task: usize) {
        let mut noted = self.noted();
        noted.running += 1;
        if let Some(since) = noted.waiting.remove(&task) {
            noted.waits.push(since.elapsed().as_secs_f64());
        }
    }

    pub(super) fn ended(&self) {
        self.noted().running -= 1;
    }

    pub(super) fn wants(&self, pods: u32) {
        let mut noted = self.noted();
        noted.wanted = pods;
        if pods > 0 && noted.first_asked.is_none() {
            noted.first_asked = noted.since_begin();
        }
    }

    pub(super) fn pod_created(&self) {
        self.noted().pods += 1;
    }

    pub(super) fn pod_ready(&self) {
        let mut noted = self.noted();
        noted.ready += 1;
        if noted.first_ready.is_none() {
            noted.first_ready = noted.since_begin();
        }
    }

    pub(super) fn pod_draining(&self) {
        self.noted().ready -= 1;
    }

    pub(super) fn pod_gone(&self) {
        self.noted().pods -= 1;
    }

    pub(super) fn sample(&self) {
        let mut noted = self.noted();
        let now = Instant::now();
        let (Some(began), Some(before)) = (noted.began, noted.sampled.replace(now)) else { return };
        noted.pod_seconds += f64::from(noted.pods) * (now - before).as_secs_f64();
        let oldest = noted.waiting.first_key_value().map(|(_, since)| (now - *since).as_secs_f64());
        let sample = Sample {
            at: (now - began).as_secs_f64(),
            available: noted.waiting.len() as u64,
            running: noted.running,
            pods_asked: noted.wanted,
            pods_ready: noted.ready,
            wait_of_oldest: oldest.unwrap_or_default(),
        };
        noted.samples.push(sample);
    }

    /// Tasks that have not started have waited until now.
    pub(super) fn end(&self) {
        let mut noted = self.noted();
        let rest = std::mem::take(&mut noted.waiting);
        noted.not_started = rest.len();
        noted.waits.extend(rest.values().map(|since| since.elapsed().as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_first_start_or_at_the_end() {
        let progress = Progress::default();
        progress.begin();
        progress.enqueued(0..3);
        progress.started(0);
        progress.ended();
        progress.started(0);
        progress.end();
        let noted = progress.noted();
        assert_eq!((noted.waits.len(), noted.not_started, noted.running), (3, 2, 1));
    }

    #[test]
    fn samples_show_what_there_is_at_the_moment() {
        let progress = Progress::default();
        progress.begin();
        progress.wants(2);
        progress.pod_created();
        progress.pod_created();
        progress.pod_ready();
        progress.enqueued(0..3);
        progress.started(1);
        progress.sample();
        progress.pod_draining();
        progress.pod_gone();
        progress.sample();
        let noted = progress.noted();
        let seen: Vec<_> = noted
            .samples
            .iter()
            .map(|sample| (sample.available, sample.running, sample.pods_asked, sample.pods_ready))
            .collect();
        assert_eq!(seen, [(2, 1, 2, 1), (2, 1, 2, 0)]);
        assert!(noted.first_asked <= noted.first_ready && noted.worker_hours() > 0.0);
    }
}
