//! Always `total`.

use super::Law;
use crate::world::World;

/// Asks for all pods at the begin, and never again.
#[derive(Debug)]
pub(crate) struct Fixed;

impl Law for Fixed {
    fn begin(&mut self, world: &mut World<'_>) {
        for queue in 0..world.queue_count() {
            let pods = world.queues[queue as usize].most_pods();
            world.set_pods(queue, pods);
        }
    }

    fn wake(&mut self, _world: &mut World<'_>, _timer: u32) {}
}
