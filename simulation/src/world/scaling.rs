//! Pods: asked for, started, drained and gone.

use super::event::{Event, PodId};
use super::pods::{Pod, PodState};
use super::{ScaleIn, World};
use crate::laws::Law;
use crate::load::PodStart;
use crate::time::{Micros, duration, micros};

impl World<'_> {
    /// Asks for this many pods of a queue. Beyond the budget none starts until another has gone: first come,
    /// first served. Returns whether that changed anything.
    pub(crate) fn set_pods(&mut self, queue: u32, pods: u32) -> bool {
        let of = &mut self.queues[queue as usize];
        if pods == of.pods_desired && pods == of.pods() {
            return false;
        }
        of.pods_desired = pods;
        let before = of.pods();
        self.shrink(queue);
        self.grow(queue);
        let of = &mut self.queues[queue as usize];
        let after = of.pods();
        if after != before {
            of.changes.note(self.now, after > before);
        }
        if after < of.pods_desired && !of.in_line {
            of.in_line = true;
            self.line.push_back(queue);
        }
        after != before
    }

    fn has_room(&self) -> bool {
        self.budget.is_none_or(|budget| self.pods_present < budget)
    }

    fn grow(&mut self, queue: u32) {
        while self.queues[queue as usize].pods() < self.queues[queue as usize].pods_desired && self.has_room()
        {
            let pod = self.pods.add(queue, self.now);
            self.pods_present += 1;
            let PodStart { least, most } = self.pod_start;
            let took = micros(least + (most - least).max(0.0) * self.rng.f64());
            let of = &mut self.queues[queue as usize];
            of.starting.push(pod);
            self.events.push(of.ready_at(self.now + took), Event::PodStarted(pod));
        }
    }

    /// Those that start go first, as a `ReplicaSet` does it, the youngest first.
    fn shrink(&mut self, queue: u32) {
        while self.queues[queue as usize].pods() > self.queues[queue as usize].pods_desired {
            if let Some(pod) = self.queues[queue as usize].starting.pop() {
                self.pod_gone(pod);
                continue;
            }
            let position = self.choose(queue);
            let of = &mut self.queues[queue as usize];
            let pod = of.ready.remove(position);
            of.free.remove(pod, &mut self.pods);
            if self.pods.get(pod).running == 0 {
                of.idle -= 1;
                self.idle -= 1;
                self.pod_gone(pod);
            } else {
                of.draining += 1;
                self.pods.get_mut(pod).state = PodState::Draining;
            }
        }
    }

    /// The position of the ready pod that goes.
    fn choose(&mut self, queue: u32) -> usize {
        let ready = &self.queues[queue as usize].ready;
        match self.scale_in {
            ScaleIn::Random => self.rng.usize(..ready.len()),
            ScaleIn::IdleFirst => {
                let running = |position: &usize| self.pods.get(ready[*position]).running;
                (0..ready.len()).rev().min_by_key(running).unwrap_or_default()
            }
        }
    }

    pub(super) fn pod_started(&mut self, pod: PodId, law: &mut dyn Law) {
        let Pod { state, queue, asked_at, .. } = *self.pods.get(pod);
        if state != PodState::Starting {
            return;
        }
        self.pods.get_mut(pod).state = PodState::Ready;
        let of = &mut self.queues[queue as usize];
        of.starting.retain(|starting| *starting != pod);
        of.ready.push(pod);
        of.starts.note(duration(self.now - asked_at));
        of.idle += 1;
        self.idle += 1;
        of.free.insert(pod, &mut self.pods);
        self.claim(queue);
        law.pods_changed(self);
    }

    /// The queue that has waited longest for a place gets its place.
    pub(super) fn pod_gone(&mut self, pod: PodId) {
        self.pods.get_mut(pod).state = PodState::Gone;
        self.outcome.workers += self.cost(self.pods.get(pod), self.now);
        self.pods_present -= 1;
        while let Some(&queue) = self.line.front() {
            let before = self.queues[queue as usize].pods();
            self.grow(queue);
            let of = &mut self.queues[queue as usize];
            if of.pods() > before {
                of.changes.note(self.now, true);
            }
            if of.pods() < of.pods_desired {
                break;
            }
            of.in_line = false;
            self.line.pop_front();
        }
    }

    /// Worker-microseconds of a pod until then.
    pub(super) fn cost(&self, pod: &Pod, until: Micros) -> u128 {
        let slots = self.queues[pod.queue as usize].per_pod();
        u128::from(until.saturating_sub(pod.asked_at)) * u128::from(slots)
    }
}
