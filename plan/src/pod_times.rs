//! How long a queue has had pods, or has waited for some.

use std::time::Duration;

use crate::{Decision, ObservedQueue};

/// How long a queue waits before it asks again for pods that did not fit on a node. Much longer than the
/// minutes for which it then waits for them, since they keep connections from other queues.
const NO_ROOM_FOR: Duration = Duration::from_mins(10);

/// When the current state of a queue's pods began, on the clock of [`decide`](crate::decide). Kept between
/// passes. `None`: the queue is not in that state.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodTimes {
    /// The queue has pods.
    held: Option<Duration>,
    /// How long it had pods before `held`, under another leader.
    before: Duration,
    /// The queue has pods, and none is ready.
    unready: Option<Duration>,
    /// Pods are wanted, and there are none.
    asked: Option<Duration>,
    /// The pods that the cluster had room for, and when it last had no room for more.
    room: Option<(u32, Duration)>,
}

impl PodTimes {
    /// Takes in the pods of a queue, and sets how long their state has lasted. `age`: of the oldest pod, from
    /// which a new leader continues; zero if there is no other leader.
    pub fn observe(&mut self, queue: &mut ObservedQueue, age: Duration, now: Duration) {
        let has_pods = queue.pods > 0;
        if !has_pods {
            self.before = Duration::ZERO;
        } else if self.held.is_none() {
            self.before = age;
        }
        if queue.unplaced > 0 {
            self.room = Some((queue.pods.saturating_sub(queue.unplaced), now));
        }
        // More than that are ready by now, or it is long ago.
        self.room =
            self.room.filter(|(room, last)| queue.ready <= *room && now.saturating_sub(*last) < NO_ROOM_FOR);
        queue.room = self.room.map(|(room, _)| room);
        keep_since(&mut self.held, has_pods, now);
        keep_since(&mut self.unready, has_pods && queue.ready == 0, now);
        let lasts = |since: Option<Duration>| since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        queue.held_for = lasts(self.held) + self.before;
        queue.unready_for = lasts(self.unready);
        queue.waited_for = lasts(self.asked);
    }

    /// Takes in what was decided for the queue.
    pub fn decided(&mut self, queue: &ObservedQueue, decision: &Decision, now: Duration) {
        keep_since(&mut self.asked, queue.pods == 0 && decision.pods_desired > 0, now);
    }
}

fn keep_since(since: &mut Option<Duration>, holds: bool, now: Duration) {
    *since = holds.then(|| since.unwrap_or(now));
}
