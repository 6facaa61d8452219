//! The work of a queue over time: what may have been done by then, and what must have been.

use super::claims::{Claim, claims};
use crate::load::{Load, QueueLoad};
use crate::time::{Micros, micros, seconds};

/// At most this many points are looked at: a coarser picture of larger loads is as good.
const MOST_POINTS: usize = 20_000;

/// The runs of a queue's tasks, as they would be with all workers.
#[derive(Debug)]
pub(super) struct Work {
    claims: Vec<Claim>,
    until: f64,
}

/// Bounds of the work that is done by a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) at: f64,
    /// Not less.
    pub(super) least: f64,
    /// Not more.
    pub(super) most: f64,
}

impl Work {
    pub(super) fn of(queue: &QueueLoad, load: &Load) -> Self {
        Self { claims: claims(queue, load), until: load.seconds }
    }

    /// Where each task may wait for this many seconds.
    pub(super) fn bounds(&self, wait: f64) -> Vec<Bounds> {
        let soon = Spans::of(&self.claims, |claim| claim.begin);
        let late = Spans::of(&self.claims, |claim| claim.begin.max(claim.since + micros(wait)));
        let points = self.points(&soon, &late);
        let (most, least) = (soon.done(&points), late.done(&points));
        let bounds = points.iter().zip(least.iter().zip(&most));
        bounds.map(|(at, (least, most))| Bounds { at: *at, least: *least, most: *most }).collect()
    }

    /// Where the bounds bend, or evenly spaced moments where that is too many.
    fn points(&self, soon: &Spans, late: &Spans) -> Vec<f64> {
        let bends = [&soon.begins, &soon.ends, &late.begins, &late.ends];
        let mut points: Vec<f64> = if self.claims.len() * bends.len() <= MOST_POINTS {
            bends.into_iter().flatten().copied().filter(|at| *at < self.until).collect()
        } else {
            let step = self.until / float(MOST_POINTS);
            (0..MOST_POINTS).map(|number| float(number) * step).collect()
        };
        points.extend([0.0, self.until]);
        points.sort_unstable_by(f64::total_cmp);
        points.dedup();
        points
    }
}

/// When the tasks begin and when they end, each in order.
#[derive(Debug)]
struct Spans {
    begins: Vec<f64>,
    ends: Vec<f64>,
}

impl Spans {
    fn of(claims: &[Claim], begin: impl Fn(&Claim) -> Micros) -> Self {
        let mut begins: Vec<f64> = claims.iter().map(|claim| seconds(begin(claim))).collect();
        let mut ends: Vec<f64> = claims.iter().map(|claim| seconds(begin(claim) + claim.takes)).collect();
        begins.sort_unstable_by(f64::total_cmp);
        ends.sort_unstable_by(f64::total_cmp);
        Self { begins, ends }
    }

    /// The work done by each of these moments, which are in order.
    fn done(&self, moments: &[f64]) -> Vec<f64> {
        let (mut begun, mut ended) = (Passed::default(), Passed::default());
        moments.iter().map(|at| begun.until(&self.begins, *at) - ended.until(&self.ends, *at)).collect()
    }
}

/// How many of some moments have passed, and their sum.
#[derive(Debug, Default)]
struct Passed {
    count: usize,
    sum: f64,
}

impl Passed {
    /// For how long they have been past, together.
    fn until(&mut self, moments: &[f64], now: f64) -> f64 {
        while let Some(at) = moments.get(self.count).filter(|at| **at < now) {
            self.count += 1;
            self.sum += at;
        }
        float(self.count) * now - self.sum
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{PodStart, Task};

    fn work(total: u32, until: f64, tasks: &[(f64, f64)]) -> Work {
        let tasks = tasks.iter().map(|(at, service)| Task { enqueued: *at, delay: 0.0, service: *service });
        let (name, tasks) = (String::from("tasks"), tasks.collect());
        let queue =
            QueueLoad { name, total, per_pod: 1, min: 0, wait_target: 5.0, tasks, faults: Vec::new() };
        let pod_start = PodStart { least: 1.0, most: 1.0 };
        let load = Load { name: "test".into(), seconds: until, budget: None, pod_start, queues: Vec::new() };
        Work::of(&queue, &load)
    }

    #[test]
    fn work_may_be_done_from_now_on_and_must_be_after_the_wait() {
        let work = work(9, 20.0, &[(1.0, 2.0), (2.0, 2.0)]);
        let bounds = work.bounds(5.0);
        let at = |moment: f64| bounds.iter().find(|bound| (bound.at - moment).abs() < 1e-9).copied();
        assert_eq!(at(2.0), Some(Bounds { at: 2.0, least: 0.0, most: 1.0 }));
        assert_eq!(at(4.0), Some(Bounds { at: 4.0, least: 0.0, most: 4.0 }));
        assert_eq!(at(7.0), Some(Bounds { at: 7.0, least: 1.0, most: 4.0 }));
        assert_eq!(at(20.0), Some(Bounds { at: 20.0, least: 4.0, most: 4.0 }));
    }

    #[test]
    fn no_more_workers_than_total_work() {
        let work = work(2, 20.0, &[(0.0, 3.0), (0.0, 3.0), (1.0, 3.0)]);
        // A task that is late in any case should begin as soon as it can.
        assert!(work.bounds(1.0).iter().all(|bound| bound.most - bound.least < 1e-9));
    }

    #[test]
    fn large_loads_are_looked_at_in_steps() {
        let tasks: Vec<(f64, f64)> = (0..10_000).map(|number| (float(number) / 100.0, 0.5)).collect();
        let bounds = work(100, 200.0, &tasks).bounds(5.0);
        assert_eq!(bounds.len(), MOST_POINTS + 1);
        assert!(bounds.windows(2).all(|pair| pair[0].most <= pair[1].most + 1e-6));
        assert!(bounds.iter().all(|bound| bound.least <= bound.most + 1e-6));
        assert!(bounds.last().is_some_and(|last| (last.least - 5000.0).abs() < 1e-3));
    }
}
