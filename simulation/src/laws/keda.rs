//! KEDA with the `HorizontalPodAutoscaler` that it makes, as of KEDA 2.21 and Kubernetes 1.33.
//!
//! KEDA polls each queue: from zero to one pod, and to zero after the cooldown. In between the
//! `HorizontalPodAutoscaler` asks KEDA at each of its synchronisations. The query counts the tasks that wait
//! and those that run; the target is one of them for each slot.

use std::collections::VecDeque;

use super::Law;
use crate::load::Load;
use crate::time::{Micros, SECOND, micros, seconds};
use crate::world::{Queue, World};

/// How often the `HorizontalPodAutoscaler` decides.
const SYNC: Micros = 15 * SECOND;

/// Nothing is changed while the metric is off its target by no more than this share.
const TOLERANCE: f64 = 0.1;

/// What can be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// `pollingInterval`.
    poll: Micros,
    /// `cooldownPeriod`.
    cooldown: Micros,
    /// `scaleDown.stabilizationWindowSeconds`.
    stabilization: Micros,
    /// Whether the `HorizontalPodAutoscaler` has a `behavior`: it is another algorithm then.
    behavior: bool,
}

/// What KEDA and Kubernetes do unless told otherwise.
pub(crate) const DEFAULTS: Settings =
    Settings { poll: 30 * SECOND, cooldown: 300 * SECOND, stabilization: 300 * SECOND, behavior: false };

/// What somebody sets for whom that is too slow and too expensive.
pub(crate) const TUNED: Settings =
    Settings { poll: 5 * SECOND, cooldown: 60 * SECOND, stabilization: 60 * SECOND, behavior: true };

/// One `ScaledObject` for each queue.
#[derive(Debug)]
pub(crate) struct Keda {
    settings: Settings,
    objects: Vec<ScaledObject>,
}

/// What is remembered of a queue.
#[derive(Debug, Default)]
struct ScaledObject {
    active_at: Option<Micros>,
    /// Numbers of pods that were recommended within the stabilisation window.
    recommended: VecDeque<(Micros, u32)>,
}

impl Keda {
    pub(crate) fn new(settings: Settings, load: &Load) -> Self {
        Self { settings, objects: load.queues.iter().map(|_| ScaledObject::default()).collect() }
    }

    /// KEDA's own loop: between zero and one.
    fn poll(&mut self, world: &mut World<'_>, queue: u32) {
        let (now, of) = (world.now(), &world.queues[queue as usize]);
        if of.database_gone(now) {
            return;
        }
        let (pods, least) = (of.pods_desired, of.least_pods());
        let object = &mut self.objects[queue as usize];
        if of.waiting_or_running() > 0 {
            object.active_at = Some(now);
            if pods == 0 {
                world.set_pods(queue, least.max(1));
            }
        } else if pods > 0 && least == 0 {
            let cooled = object.active_at.is_none_or(|active| active + self.settings.cooldown < now);
            if cooled {
                object.recommended.clear();
                world.set_pods(queue, 0);
            }
        }
    }

    /// The `HorizontalPodAutoscaler`, which rests at zero.
    fn sync(&mut self, world: &mut World<'_>, queue: u32) {
        let (now, of) = (world.now(), &world.queues[queue as usize]);
        let current = of.pods_desired;
        if current == 0 || of.database_gone(now) {
            return;
        }
        let (least, most) = (of.least_pods().max(1), of.most_pods());
        let recommended = recommend(of).clamp(least, most.max(least));
        let object = &mut self.objects[queue as usize];
        let desired = if self.settings.behavior {
            let highest = object.stabilize(now, recommended, self.settings.stabilization);
            if recommended < current { highest.min(current) } else { recommended }
        } else {
            if object.recommended.is_empty() {
                object.recommended.push_back((now, current));
            }
            object.stabilize(now, recommended, self.settings.stabilization)
        };
        let limit = if self.settings.behavior { most_with_behavior(current) } else { most_without(current) };
        world.set_pods(queue, desired.min(limit).clamp(least, most.max(least)));
    }
}

/// Pods for this many tasks, as `AverageValue` has it.
fn recommend(queue: &Queue<'_>) -> u32 {
    let pods = queue.pods();
    let tasks = queue.waiting_or_running();
    let per_pod = u64::from(queue.per_pod());
    let ratio = seconds(tasks * SECOND) / f64::from(queue.per_pod() * pods.max(1));
    if pods > 0 && (ratio - 1.0).abs() <= TOLERANCE {
        return pods;
    }
    u32::try_from(tasks.div_ceil(per_pod)).unwrap_or(u32::MAX)
}

/// Without a `behavior`: to the double, or to four.
fn most_without(current: u32) -> u32 {
    current.saturating_mul(2).max(4)
}

/// With a `behavior` that sets no policies: four pods more or the double.
fn most_with_behavior(current: u32) -> u32 {
    current.saturating_mul(2).max(current.saturating_add(4))
}

impl ScaledObject {
    /// Notes a number and returns the highest of the window.
    fn stabilize(&mut self, now: Micros, pods: u32, window: Micros) -> u32 {
        self.recommended.retain(|(at, _)| at + window > now);
        self.recommended.push_back((now, pods));
        self.recommended.iter().map(|(_, pods)| *pods).max().unwrap_or(pods)
    }
}

impl Law for Keda {
    /// The loops of the queues begin at moments of their own. Timers of polls are even, those of
    /// synchronisations odd.
    fn begin(&mut self, world: &mut World<'_>) {
        for queue in 0..world.queue_count() {
            let least = world.queues[queue as usize].least_pods();
            world.set_pods(queue, least);
            for (timer, interval) in [(2 * queue, self.settings.poll), (2 * queue + 1, SYNC)] {
                let first = micros(world.rng.f64() * seconds(interval));
                world.wake(first, timer);
            }
        }
    }

    fn wake(&mut self, world: &mut World<'_>, timer: u32) {
        let queue = timer / 2;
        let interval = if timer.is_multiple_of(2) {
            self.poll(world, queue);
            self.settings.poll
        } else {
            self.sync(world, queue);
            SYNC
        };
        world.wake(world.now() + interval, timer);
    }
}
