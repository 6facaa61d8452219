//! Tasks: enqueued, claimed, run and tried again.

use super::World;
use super::event::{Event, PodId, Run};
use super::pods::PodState;
use crate::laws::Law;
use crate::time::{Micros, SECOND, micros};

/// A delayed task or a retry counts as due soon from this time before it is due.
const SOON: Micros = 5 * SECOND;

/// After the first failed run; each further one doubles it.
const FIRST_BACKOFF: Micros = 15 * SECOND;

/// Doubled at most so often: to an hour and four minutes.
const MOST_DOUBLINGS: u32 = 8;

/// Backoffs are spread so far to both sides, so that tasks that fail together are not tried together.
const BACKOFF_SPREAD: f64 = 0.1;

/// How long a task waits after a failed run, when it has failed so often before.
pub(crate) fn backoff(failures: u32) -> Micros {
    FIRST_BACKOFF << failures.min(MOST_DOUBLINGS)
}

impl World<'_> {
    /// Everything that commits at this moment.
    pub(super) fn enqueue(&mut self, law: &mut dyn Law) {
        while let Some((_, queue, _)) = self.committing() {
            let mut can_start = false;
            while let Some((_, same, task)) = self.committing()
                && same == queue
            {
                self.next_enqueue += 1;
                can_start |= self.enqueue_task(queue, task);
            }
            if can_start {
                self.claim(queue);
                law.committed(self, queue);
            }
        }
    }

    fn committing(&self) -> Option<(Micros, u32, u32)> {
        self.enqueues.get(self.next_enqueue).copied().filter(|(at, ..)| *at == self.now)
    }

    /// Whether it can start at once.
    fn enqueue_task(&mut self, queue: u32, task: u32) -> bool {
        let now = self.now;
        let of = &mut self.queues[queue as usize];
        let delay = micros(of.load.tasks[task as usize].delay);
        if delay > 0 {
            self.schedule(queue, task, now + delay);
            return false;
        }
        of.arrivals.count(now);
        of.waiting.push_back((now, task));
        true
    }

    fn schedule(&mut self, queue: u32, task: u32, due: Micros) {
        self.events.push(due.saturating_sub(SOON).max(self.now), Event::DueSoon { queue });
        self.events.push(due, Event::Due { queue, task });
    }

    pub(super) fn due(&mut self, queue: u32, task: u32) {
        let of = &mut self.queues[queue as usize];
        of.due_soon = of.due_soon.saturating_sub(1);
        of.waiting.push_back((self.now, task));
        self.claim(queue);
    }

    /// Starts waiting tasks while there are free slots.
    pub(super) fn claim(&mut self, queue: u32) {
        if !self.queues[queue as usize].database_gone(self.now) {
            while self.claim_one(queue) {}
        }
        self.queues[queue as usize].note_concurrency(self.now);
    }

    /// Whether there was a task and a slot for it.
    fn claim_one(&mut self, queue: u32) -> bool {
        let of = &mut self.queues[queue as usize];
        if of.waiting.is_empty() {
            return false;
        }
        let Some(pod) = of.free.any(&mut self.rng) else { return false };
        let Some((since, task)) = of.waiting.pop_front() else { return false };
        self.start_run(queue, pod, since, task);
        true
    }

    fn start_run(&mut self, queue: u32, pod: PodId, since: Micros, task: u32) {
        let (now, of) = (self.now, &mut self.queues[queue as usize]);
        let fails_after = of.fails_after(now);
        let took = fails_after.unwrap_or_else(|| micros(of.load.tasks[task as usize].service));
        of.running += 1;
        of.began_sum += now;
        if self.pods.get(pod).running == 0 {
            of.idle -= 1;
            self.idle -= 1;
        }
        self.pods.get_mut(pod).running += 1;
        if self.pods.get(pod).running >= of.per_pod() {
            of.free.remove(pod, &mut self.pods);
        }
        if of.failures.is_empty() || !of.failures.contains_key(&task) {
            self.outcome.waits.push(now - since);
            self.outcome.late += u64::from(self.limits.is_late(now - since));
        }
        let run = Run { pod, task, began: now, fails: fails_after.is_some() };
        self.events.push(now + took, Event::RunEnded(run));
    }

    pub(super) fn run_ended(&mut self, run: Run, law: &mut dyn Law) {
        let Run { pod, task, began, fails } = run;
        let (now, queue) = (self.now, self.pods.get(pod).queue);
        let of = &mut self.queues[queue as usize];
        of.running -= 1;
        of.began_sum -= began;
        of.runs.count(now, now - began, fails);
        self.outcome.busy += u128::from(now - began);
        self.outcome.completed += u64::from(!fails);
        self.pods.get_mut(pod).running -= 1;
        let idle = self.pods.get(pod).running == 0;
        if self.pods.get(pod).state == PodState::Ready {
            of.idle += u32::from(idle);
            self.idle += u32::from(idle);
            of.free.insert(pod, &mut self.pods);
        }
        if fails {
            self.retry_later(queue, task);
        }
        self.claim(queue);
        if idle && self.pods.get(pod).state == PodState::Draining {
            self.queues[queue as usize].draining -= 1;
            self.pod_gone(pod);
            law.pods_changed(self);
        }
    }

    fn retry_later(&mut self, queue: u32, task: u32) {
        let failures = self.queues[queue as usize].failures.entry(task).or_default();
        let backoff = backoff(*failures);
        *failures += 1;
        let spread = 1.0 + BACKOFF_SPREAD * (2.0 * self.rng.f64() - 1.0);
        self.schedule(queue, task, self.now + micros(crate::time::seconds(backoff) * spread));
    }
}
