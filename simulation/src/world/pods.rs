//! The pods of all queues.

use super::event::PodId;
use crate::time::Micros;

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodState {
    /// Asked for; claims nothing yet.
    Starting,
    /// Claims tasks.
    Ready,
    /// Claims nothing more and is gone when its tasks have ended.
    Draining,
    /// Is no more.
    Gone,
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) queue: u32,
    pub(crate) state: PodState,
    pub(crate) asked_at: Micros,
    /// Tasks that run on it.
    pub(crate) running: u32,
    /// Where it is among the pods of its queue with a free slot.
    free_position: Option<u32>,
}

/// All pods that there were.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    pods: Vec<Pod>,
}

impl Pods {
    /// Another pod that starts.
    pub(crate) fn add(&mut self, queue: u32, asked_at: Micros) -> PodId {
        let id = PodId::try_from(self.pods.len()).unwrap_or(PodId::MAX);
        self.pods.push(Pod { queue, state: PodState::Starting, asked_at, running: 0, free_position: None });
        id
    }

    pub(crate) fn get(&self, id: PodId) -> &Pod {
        &self.pods[id as usize]
    }

    /// Those that are not gone.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.state != PodState::Gone)
    }

    pub(crate) fn get_mut(&mut self, id: PodId) -> &mut Pod {
        &mut self.pods[id as usize]
    }
}

/// The ready pods of a queue that have a free slot, in no order.
#[derive(Debug, Default)]
pub(crate) struct FreePods {
    ids: Vec<PodId>,
}

impl FreePods {
    /// Any of them.
    pub(crate) fn any(&self, rng: &mut fastrand::Rng) -> Option<PodId> {
        match self.ids.len() {
            0 => None,
            1 => Some(self.ids[0]),
            several => Some(self.ids[rng.usize(..several)]),
        }
    }

    /// Adds it, unless it is there.
    pub(crate) fn insert(&mut self, id: PodId, pods: &mut Pods) {
        let pod = pods.get_mut(id);
        if pod.free_position.is_none() {
            pod.free_position = u32::try_from(self.ids.len()).ok();
            self.ids.push(id);
        }
    }

    /// Removes it, if it is there.
    pub(crate) fn remove(&mut self, id: PodId, pods: &mut Pods) {
        let Some(position) = pods.get_mut(id).free_position.take() else { return };
        self.ids.swap_remove(position as usize);
        if let Some(moved) = self.ids.get(position as usize) {
            pods.get_mut(*moved).free_position = Some(position);
        }
    }
}
