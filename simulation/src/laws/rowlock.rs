//! Our operator: its own decisions, fed as it feeds them.

use std::time::Duration;

use rowlock_crds::TaskQueueSpec;
use rowlock_plan::{Backlog, Connections, Decision, Memory, ObservedQueue, PodTimes, Reason, decide, share};

use super::Law;
use crate::load::Load;
use crate::time::{Micros, duration, micros};
use crate::world::{Queue, World, count};

/// The longest time between two passes, after the rest.
const TICK: Micros = 2_000_000;

/// The rest after a pass, at least.
const LEAST_REST: Micros = 300_000;

/// From a commit or a change of pods until the pass that knows of it.
const LATENCY: Micros = 50_000;

/// What a poll of the database takes, and what each queue adds. The rest is nineteen times as long.
const POLL: Micros = 2_000;
const POLL_OF_QUEUE: Micros = 50;
const RESTS: Micros = 19;

/// One controller for all queues of the database.
#[derive(Debug)]
pub(crate) struct Rowlock {
    managed: Vec<Managed>,
    connections: Option<Connections>,
    rest: Micros,
    next_pass: Micros,
    last_pass: Option<Micros>,
}

/// What is remembered of a queue.
#[derive(Debug)]
struct Managed {
    /// What its manifest says.
    spec: ObservedQueue,
    memory: Memory,
    times: PodTimes,
    /// Whether a commit wakes the controller: no instance listens, and none is waited for.
    at_zero: bool,
}

impl Rowlock {
    /// With the specs of the queues, in the same order.
    pub(crate) fn new(load: &Load, specs: &[TaskQueueSpec]) -> Self {
        let polled = POLL + POLL_OF_QUEUE * load.queues.len() as Micros;
        Self {
            managed: specs.iter().map(Managed::new).collect(),
            connections: load.budget.map(connections),
            rest: LEAST_REST.max(RESTS * polled),
            next_pass: 0,
            last_pass: None,
        }
    }

    fn pass(&mut self, world: &mut World<'_>) {
        let now = world.now();
        let observed: Vec<ObservedQueue> = self
            .managed
            .iter_mut()
            .zip(&mut world.queues)
            .map(|(managed, queue)| managed.observe(queue, now))
            .collect();
        let mut decisions: Vec<Decision> = self
            .managed
            .iter_mut()
            .zip(&observed)
            .map(|(managed, observed)| managed.decide(observed, now))
            .collect();
        if let Some(connections) = &mut self.connections {
            connections.leaving = world.draining();
            share(connections, &observed, &mut decisions);
        }
        let mut changed = false;
        for ((decision, managed), queue) in decisions.iter().zip(&mut self.managed).zip(0..) {
            managed.at_zero = decision.pods_desired == 0 && decision.reason == Reason::Idle;
            changed |= world.set_pods(queue, decision.pods_desired);
        }
        self.last_pass = Some(now);
        self.pass_at(world, now + self.rest + if changed { 0 } else { TICK });
    }

    fn pass_at(&mut self, world: &mut World<'_>, at: Micros) {
        self.next_pass = at;
        world.wake(at, 0);
    }

    /// As soon as the rest allows it.
    fn pass_soon(&mut self, world: &mut World<'_>) {
        let rested = self.last_pass.map_or(0, |last| last + self.rest);
        let at = rested.max(world.now() + LATENCY);
        if at < self.next_pass {
            self.pass_at(world, at);
        }
    }
}

impl Law for Rowlock {
    fn begin(&mut self, world: &mut World<'_>) {
        let first = micros(world.rng.f64() * 2.0);
        self.pass_at(world, first);
    }

    /// A timer that has been put off or moved forward says nothing.
    fn wake(&mut self, world: &mut World<'_>, _timer: u32) {
        if world.now() == self.next_pass {
            self.pass(world);
        }
    }

    fn committed(&mut self, world: &mut World<'_>, queue: u32) {
        let at_zero = self.managed[queue as usize].at_zero;
        if at_zero && !world.queues[queue as usize].database_gone(world.now()) {
            self.pass_soon(world);
        }
    }

    fn pods_changed(&mut self, world: &mut World<'_>) {
        self.pass_soon(world);
    }
}

impl Managed {
    fn new(spec: &TaskQueueSpec) -> Self {
        let spec = ObservedQueue::of(spec);
        Self { spec, memory: Memory::default(), times: PodTimes::default(), at_zero: false }
    }

    fn observe(&mut self, queue: &mut Queue<'_>, now: Micros) -> ObservedQueue {
        let mut observed = ObservedQueue {
            pods: queue.pods(),
            ready: count(queue.ready.len()),
            stats: (!queue.database_gone(now)).then(|| backlog(queue, now)),
            pod_start: queue.starts.usual().unwrap_or(self.spec.pod_start),
            ..self.spec.clone()
        };
        self.times.observe(&mut observed, Duration::ZERO, duration(now));
        observed
    }

    fn decide(&mut self, observed: &ObservedQueue, now: Micros) -> Decision {
        let mut decision = decide(observed, std::mem::take(&mut self.memory), duration(now));
        self.memory = std::mem::take(&mut decision.memory);
        self.times.decided(observed, &decision, duration(now));
        decision
    }
}

/// What one statement and the heartbeats tell.
fn backlog(queue: &mut Queue<'_>, now: Micros) -> Backlog {
    Backlog {
        available: queue.waiting.len() as u64,
        due_soon: queue.due_soon,
        running: u64::from(queue.running),
        arrivals: queue.arrivals.at(now),
        runs: queue.runs.at(now),
        mean_running_seconds: queue.mean_running_seconds(now),
        oldest_available_seconds: queue.oldest_seconds(now),
    }
}

/// A server whose connections are enough for exactly this many pods.
fn connections(budget: u32) -> Connections {
    let of = |limit| Connections { limit, others: 0, others_steady: 0, leaving: 0 };
    // A tenth of them is reserved, or five.
    let (least, most) = (budget.saturating_mul(2), budget.saturating_mul(3).saturating_add(10));
    (least..=most).map(of).find(|connections| connections.pods() >= budget).unwrap_or_else(|| of(most))
}
