//! Pods by a schedule: how the oracle tries its plans.

use super::Law;
use crate::time::Micros;
use crate::world::World;

/// Asks for the pods of one queue at given moments.
#[derive(Debug)]
pub(crate) struct Schedule<'a> {
    steps: &'a [(Micros, u32)],
}

impl<'a> Schedule<'a> {
    /// From each of these moments on, this many pods.
    pub(crate) fn new(steps: &'a [(Micros, u32)]) -> Self {
        Self { steps }
    }

    fn wake_at(&self, world: &mut World<'_>, step: u32) {
        if let Some((at, _)) = self.steps.get(step as usize) {
            world.wake((*at).max(world.now()), step);
        }
    }
}

impl Law for Schedule<'_> {
    fn begin(&mut self, world: &mut World<'_>) {
        self.wake_at(world, 0);
    }

    fn wake(&mut self, world: &mut World<'_>, timer: u32) {
        if let Some((_, pods)) = self.steps.get(timer as usize) {
            world.set_pods(0, *pods);
        }
        self.wake_at(world, timer + 1);
    }
}
