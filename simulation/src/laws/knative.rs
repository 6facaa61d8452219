//! Knative's pod autoscaler at its defaults, as its `autoscaler.go` has it.
//!
//! It averages how many tasks wait or run over a minute and over six seconds, and divides by seven tenths of
//! the slots of a pod. When the short average asks for twice the ready pods it panics: for a minute it only
//! adds pods.

use std::collections::VecDeque;

use super::Law;
use crate::load::Load;
use crate::time::{Micros, SECOND, micros};
use crate::world::{World, count};

/// How often it decides.
const TICK: Micros = 2 * SECOND;

/// From what a pod reports until it is decided by: reports and decisions come each second or two.
const REPORT_AGE: Micros = SECOND;

/// The window of the stable average.
const STABLE_WINDOW: Micros = 60 * SECOND;

/// The window of the average that may cause panic.
const PANIC_WINDOW: Micros = 6 * SECOND;

/// Panic begins when the tasks need this many times the ready pods.
const PANIC_THRESHOLD: f64 = 2.0;

/// The share of its slots that a pod should use.
const UTILISATION: f64 = 0.7;

/// In one decision the pods may become at most this many times as many as are ready,
const MOST_UP: f64 = 1000.0;

/// or this part of them.
const MOST_DOWN: f64 = 2.0;

/// What it takes to send requests elsewhere before the last pod goes.
const ZERO_GRACE: Micros = 5 * SECOND;

/// One autoscaler for each queue.
#[derive(Debug)]
pub(crate) struct Knative {
    autoscalers: Vec<Autoscaler>,
}

/// What is remembered of a queue.
#[derive(Debug, Default)]
struct Autoscaler {
    /// Tasks times microseconds until each of the last decisions.
    areas: VecDeque<(Micros, u128)>,
    /// The last decision before which there was a task.
    worked_at: Option<Micros>,
    panics_since: Option<Micros>,
    most_in_panic: u32,
    zero_since: Option<Micros>,
    /// Pods that it has decided on, not applied yet.
    decided: u32,
}

impl Knative {
    pub(crate) fn new(load: &Load) -> Self {
        Self { autoscalers: load.queues.iter().map(|_| Autoscaler::default()).collect() }
    }

    fn decide(&mut self, world: &mut World<'_>, queue: u32) {
        let (now, of) = (world.now(), &world.queues[queue as usize]);
        if of.database_gone(now) {
            return;
        }
        let autoscaler = &mut self.autoscalers[queue as usize];
        let target = f64::from(of.per_pod()) * UTILISATION;
        let averages = autoscaler.averages(now, of.concurrency.area_at(now));
        let asked = autoscaler.scale(now, averages.map(|tasks| tasks / target), count(of.ready.len()));
        let (least, most) = (of.least_pods(), of.most_pods());
        let mut desired = asked.clamp(least, most.max(least));
        if desired > 0 {
            autoscaler.zero_since = None;
        } else if now - *autoscaler.zero_since.get_or_insert(now) < ZERO_GRACE {
            desired = of.pods_desired.min(1);
        }
        if desired != autoscaler.decided {
            autoscaler.decided = desired;
            world.wake(now + REPORT_AGE, 2 * queue + 1);
        }
    }
}

impl Autoscaler {
    /// The averages of the stable and of the panic window. After a whole window without tasks a new one
    /// begins.
    fn averages(&mut self, now: Micros, area: u128) -> [f64; 2] {
        while self.areas.front().is_some_and(|(at, _)| at + STABLE_WINDOW < now) {
            self.areas.pop_front();
        }
        if self.areas.back().is_some_and(|(_, before)| *before != area) {
            self.worked_at = Some(now);
        }
        if self.worked_at.is_none_or(|worked| worked + STABLE_WINDOW < now) {
            self.areas.clear();
        }
        let average = |window: Micros| {
            let within = |(at, _): &&(Micros, u128)| at + window >= now;
            let oldest = self.areas.iter().rev().take_while(within).last();
            oldest.map_or(0.0, |(at, before)| ratio(area - before, now - at))
        };
        let averages = [average(STABLE_WINDOW), average(PANIC_WINDOW)];
        self.areas.push_back((now, area));
        averages
    }

    /// Pods for the stable and for the panic average, in fractions of pods.
    fn scale(&mut self, now: Micros, asked: [f64; 2], ready: u32) -> u32 {
        let ready = f64::from(ready.max(1));
        let limited = |pods: f64| whole(pods.ceil().clamp((ready / MOST_DOWN).floor(), ready * MOST_UP));
        let [stable, panic] = asked;
        if panic.ceil() / ready >= PANIC_THRESHOLD {
            self.panics_since = Some(now);
        } else if self.panics_since.is_some_and(|since| since + STABLE_WINDOW < now) {
            (self.panics_since, self.most_in_panic) = (None, 0);
        }
        if self.panics_since.is_none() {
            return limited(stable);
        }
        self.most_in_panic = self.most_in_panic.max(limited(stable)).max(limited(panic));
        self.most_in_panic
    }
}

#[expect(clippy::cast_precision_loss, reason = "an average needs no more digits")]
fn ratio(area: u128, time: Micros) -> f64 {
    if time == 0 { 0.0 } else { area as f64 / time as f64 }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn whole(pods: f64) -> u32 {
    pods as u32
}

impl Law for Knative {
    /// Timers of decisions are even, those that apply them odd.
    fn begin(&mut self, world: &mut World<'_>) {
        for queue in 0..world.queue_count() {
            let least = world.queues[queue as usize].least_pods();
            world.set_pods(queue, least);
            self.autoscalers[queue as usize].decided = least;
            let first = micros(world.rng.f64() * crate::time::seconds(TICK));
            world.wake(first, 2 * queue);
        }
    }

    fn wake(&mut self, world: &mut World<'_>, timer: u32) {
        let queue = timer / 2;
        if timer.is_multiple_of(2) {
            self.decide(world, queue);
            world.wake(world.now() + TICK, timer);
        } else {
            let decided = self.autoscalers[queue as usize].decided;
            world.set_pods(queue, decided);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(averages: [f64; 2], expected: [f64; 2]) {
        let close =
            averages.iter().zip(expected).all(|(average, expected)| (average - expected).abs() < 1e-9);
        assert!(close, "{averages:?}, not {expected:?}");
    }

    #[test]
    fn it_panics_at_twice_the_ready_pods_and_then_only_adds() {
        let mut autoscaler = Autoscaler::default();
        assert_eq!(autoscaler.scale(0, [3.2, 5.0], 3), 4);
        assert_eq!(autoscaler.scale(2 * SECOND, [4.0, 8.0], 4), 8);
        assert_eq!(autoscaler.scale(4 * SECOND, [4.0, 1.0], 8), 8);
        assert_eq!(autoscaler.scale(62 * SECOND, [2.0, 1.0], 8), 8);
        assert_eq!(autoscaler.scale(63 * SECOND, [2.0, 1.0], 8), 4);
    }

    #[test]
    fn averages_are_over_what_is_known_of_their_window() {
        let mut autoscaler = Autoscaler::default();
        let second = u128::from(SECOND);
        assert_close(autoscaler.averages(0, 0), [0.0, 0.0]);
        assert_close(autoscaler.averages(2 * SECOND, 20 * second), [10.0, 10.0]);
        assert_close(autoscaler.averages(10 * SECOND, 20 * second), [2.0, 0.0]);
        // After a minute without tasks the windows begin again.
        for tick in 6..=70 {
            autoscaler.averages(2 * tick * SECOND, 20 * second);
        }
        assert_close(autoscaler.averages(142 * SECOND, 40 * second), [10.0, 10.0]);
    }
}
