//! The simulated world: queues with tasks, pods that start, run tasks and drain, and what goes wrong.
//!
//! It goes from event to event. An autoscaler ([`Law`]) is woken when it asked to be, and says how many pods
//! a queue should have.

mod event;
mod pods;
mod queue;
mod runs;
mod scaling;
mod statistics;

use std::collections::VecDeque;

use crate::laws::Law;
use crate::load::{FaultKind, Load, PodStart, QueueLoad};
use crate::outcome::{Limits, Outcome};
use crate::score::Sample;
use crate::time::{Micros, SECOND, micros, seconds};
use event::{Event, Events};
use pods::Pods;
pub(crate) use queue::{Queue, count};
pub(crate) use runs::backoff;

/// Which ready pods go first when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScaleIn {
    /// Those that run the fewest tasks.
    IdleFirst,
    /// Any: the `ReplicaSet` knows nothing of tasks.
    Random,
}

/// The world at the present moment.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) queues: Vec<Queue<'a>>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) budget: Option<u32>,
    now: Micros,
    end: Micros,
    pod_start: PodStart,
    scale_in: ScaleIn,
    events: Events,
    /// The tasks of all queues in the order in which they are enqueued: when, queue, position.
    enqueues: Vec<(Micros, u32, u32)>,
    next_enqueue: usize,
    pods: Pods,
    /// Pods that start, are ready or drain.
    pods_present: u32,
    /// Ready pods without a task.
    idle: u32,
    /// Queues whose pods the budget did not allow, in the order in which they asked.
    line: VecDeque<u32>,
    limits: Limits,
    outcome: Outcome,
    next_sample: Micros,
    samples: Option<Vec<Sample>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(load: &'a Load, scale_in: ScaleIn, seed: u64) -> Self {
        Self::of(load, &load.queues, scale_in, seed)
    }

    /// With these of its queues alone.
    pub(crate) fn of(load: &'a Load, queues: &'a [QueueLoad], scale_in: ScaleIn, seed: u64) -> Self {
        let mut events = Events::default();
        for (queue, position) in queues.iter().zip(0..) {
            let gone = queue.faults.iter().filter(|fault| fault.kind == FaultKind::DatabaseGone);
            gone.for_each(|fault| events.push(micros(fault.until), Event::DatabaseBack { queue: position }));
        }
        Self {
            queues: queues.iter().map(Queue::new).collect(),
            rng: fastrand::Rng::with_seed(seed),
            budget: load.budget,
            now: 0,
            end: micros(load.seconds),
            pod_start: load.pod_start,
            scale_in,
            events,
            enqueues: enqueues(queues),
            next_enqueue: 0,
            pods: Pods::default(),
            pods_present: 0,
            idle: 0,
            line: VecDeque::new(),
            limits: Limits::default(),
            outcome: Outcome::default(),
            next_sample: 0,
            samples: None,
        }
    }

    /// Takes a sample each second.
    pub(crate) fn trace(mut self) -> Self {
        self.samples = Some(Vec::new());
        self
    }

    /// With as many pods as anybody asks for.
    pub(crate) fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Gives up when one of these is exceeded.
    pub(crate) fn limit(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// How many queues there are: their names are the numbers below.
    pub(crate) fn queue_count(&self) -> u32 {
        count(self.queues.len())
    }

    /// Pods that drain.
    pub(crate) fn draining(&self) -> u32 {
        self.queues.iter().map(|queue| queue.draining).sum()
    }

    /// Wakes the law at that moment.
    pub(crate) fn wake(&mut self, at: Micros, timer: u32) {
        self.events.push(at, Event::Wake { timer });
    }

    /// Runs until the load is over. `None` when a limit was exceeded.
    pub(crate) fn run(mut self, law: &mut dyn Law) -> Option<(Outcome, Vec<Sample>)> {
        law.begin(&mut self);
        while let Some(at) = self.next_at() {
            self.sample_until(at);
            self.now = at;
            self.step(law);
            if self.limits.are_exceeded(&self.outcome) {
                return None;
            }
        }
        self.sample_until(self.end + 1);
        self.now = self.end;
        Some(self.finish())
    }

    fn next_at(&self) -> Option<Micros> {
        let enqueue = self.enqueues.get(self.next_enqueue).map(|(at, ..)| *at);
        let next = enqueue.into_iter().chain(self.events.next_at()).min()?;
        (next < self.end).then_some(next)
    }

    fn step(&mut self, law: &mut dyn Law) {
        if self.enqueues.get(self.next_enqueue).is_some_and(|(at, ..)| *at == self.now) {
            return self.enqueue(law);
        }
        match self.events.pop() {
            Some(Event::PodStarted(pod)) => self.pod_started(pod, law),
            Some(Event::DueSoon { queue }) => self.queues[queue as usize].due_soon += 1,
            Some(Event::Due { queue, task }) => self.due(queue, task),
            Some(Event::RunEnded(run)) => self.run_ended(run, law),
            Some(Event::DatabaseBack { queue }) => self.claim(queue),
            Some(Event::Wake { timer }) => law.wake(self, timer),
            None => (),
        }
    }

    fn sample_until(&mut self, at: Micros) {
        if self.samples.is_none() && self.queues.len() < 2 {
            return;
        }
        while self.next_sample < at {
            self.note_starving();
            if self.samples.is_some() {
                let sample = self.sample();
                self.samples.iter_mut().for_each(|samples| samples.push(sample));
            }
            self.next_sample += SECOND;
        }
    }

    fn note_starving(&mut self) {
        let (now, others_idle) = (self.next_sample, self.idle > 0);
        for queue in &mut self.queues {
            if !others_idle || queue.waiting.is_empty() || queue.pods() > 0 {
                queue.starving_since = None;
                continue;
            }
            let since = *queue.starving_since.get_or_insert(now);
            self.outcome.starved = self.outcome.starved.max(now - since);
        }
    }

    fn sample(&self) -> Sample {
        let at = self.next_sample;
        let mut sample = Sample { at: seconds(at), ..Sample::default() };
        for queue in &self.queues {
            sample.available += queue.waiting.len() as u64;
            sample.running += u64::from(queue.running);
            sample.pods_asked += queue.pods();
            sample.pods_ready += count(queue.ready.len());
            sample.wait_of_oldest = sample.wait_of_oldest.max(queue.oldest_seconds(at).unwrap_or_default());
        }
        sample
    }

    /// Counts what still waits and runs, and the pods that are there.
    fn finish(mut self) -> (Outcome, Vec<Sample>) {
        let end = self.end;
        for queue in &mut self.queues {
            let failures = &queue.failures;
            let unstarted = queue.waiting.iter().filter(|(_, task)| !failures.contains_key(task));
            let waits: Vec<Micros> = unstarted.map(|(since, _)| end - since).collect();
            self.outcome.not_started += waits.len() as u64;
            self.outcome.waits.extend(waits);
            self.outcome.busy += u128::from((u64::from(queue.running) * end).saturating_sub(queue.began_sum));
            self.outcome.reversals.push(std::mem::take(&mut queue.changes.reversals));
        }
        self.outcome.workers += self.pods.present().map(|pod| self.cost(pod, end)).sum::<u128>();
        self.outcome.lasted = end;
        (self.outcome, self.samples.unwrap_or_default())
    }
}

fn enqueues(queues: &[QueueLoad]) -> Vec<(Micros, u32, u32)> {
    let mut enqueues = Vec::with_capacity(queues.iter().map(|queue| queue.tasks.len()).sum());
    for (queue, position) in queues.iter().zip(0..) {
        let tasks = queue.tasks.iter().zip(0..);
        enqueues.extend(tasks.map(|(task, index)| (micros(task.enqueued), position, index)));
    }
    enqueues.sort_unstable();
    enqueues
}
