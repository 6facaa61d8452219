//! Where the loops of one database meet. Each Secret has a loop of its own; here they tell each other what their queues ask for, so that all of
//! them share its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rowlock_plan::{Connections, Decision, ObservedQueue, share};

/// A database, for the loops that tend its queues.
#[derive(Debug, Default)]
pub struct Room {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// By the names of the loops.
    asked: BTreeMap<String, Asked>,
    /// Whose queues some loop here tends, or is about to.
    owners: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Asked {
    queues: BTreeMap<String, (ObservedQueue, Decision)>,
    leaving: u32,
}

/// A loop's place in a room; given up when dropped.
#[derive(Debug)]
pub struct Seat {
    room: Arc<Room>,
    name: String,
}

impl Room {
    /// Whose queues are tended by us, in this loop or another.
    pub fn set_owners(&self, owners: BTreeSet<String>) {
        self.inside().owners = owners;
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A place for the loop of that name, which no other has.
    pub fn take(room: &Arc<Room>, name: String) -> Self {
        room.inside().asked.insert(name.clone(), Asked::default());
        Self { room: Arc::clone(room), name }
    }

    /// Whether a queue of that owner is one of ours, so that its instances are no strangers.
    pub(crate) fn is_ours(&self, owner: &str) -> bool {
        self.room.inside().owners.contains(owner)
    }

    /// Whether a loop has told of that queue.
    pub(crate) fn is_told(&self, queue: &str) -> bool {
        self.room.inside().asked.values().any(|asked| asked.queues.contains_key(queue))
    }

    /// Tells the others what is asked for here, before connections limit it.
    pub(crate) fn tell<'a>(
        &self,
        queues: impl Iterator<Item = (&'a String, (&'a ObservedQueue, &'a Decision))>,
        leaving: u32,
    ) {
        let queues =
            queues.map(|(name, (observed, decision))| (name.clone(), (observed.clone(), decision.clone())));
        let asked = Asked { queues: queues.collect(), leaving };
        self.room.inside().asked.insert(self.name.clone(), asked);
    }

    /// Pods on their way out, over all loops.
    pub(crate) fn leaving(&self) -> u32 {
        self.room.inside().asked.values().map(|asked| asked.leaving).sum()
    }

    /// What connections leave of what was asked for here, in the order of the queues' names: every loop comes to the same.
    pub(crate) fn share(&self, connections: &Connections) -> Vec<Decision> {
        let inside = self.room.inside();
        let all: BTreeMap<_, _> = inside
            .asked
            .iter()
            .flat_map(|(seat, asked)| asked.queues.iter().map(move |(queue, wish)| ((queue, seat), wish)))
            .collect();
        let (observed, mut decisions): (Vec<_>, Vec<_>) = all.values().map(|wish| (*wish).clone()).unzip();
        share(connections, &observed, &mut decisions);
        let of = all.keys().zip(decisions);
        of.filter(|((_, seat), _)| **seat == self.name).map(|(_, decision)| decision).collect()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.inside().asked.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rowlock_crds::TaskQueueSpec;
    use rowlock_plan::{Memory, decide};
    use std::time::Duration;

    /// A queue that always asks for ten pods of ten workers, and holds so many.
    fn asks(seat: &Seat, queue: &str, pods: u32) {
        let observed =
            ObservedQueue { pods, per_pod: 10, ..ObservedQueue::of(&TaskQueueSpec::with_workers(100)) };
        let decision = decide(&observed, Memory::default(), Duration::ZERO);
        assert_eq!(decision.pods_desired, 10);
        seat.tell([(&queue.to_owned(), (&observed, &decision))].into_iter(), 0);
    }

    fn pods(seat: &Seat, limit: u32) -> Vec<u32> {
        let connections = Connections { limit, others: 0, leaving: seat.leaving() };
        seat.share(&connections).iter().map(|decision| decision.pods_desired).collect()
    }

    #[test]
    fn loops_of_one_database_share_its_connections_and_come_to_the_same() {
        let room = Arc::new(Room::default());
        let (one, two) = (Seat::take(&room, "b/db".into()), Seat::take(&room, "a/db".into()));
        asks(&one, "emails", 0);
        assert_eq!(pods(&one, 100), [10]);
        asks(&two, "letters", 0);
        // Eleven pods: room for twenty-two connections beside the five kept free.
        assert_eq!((pods(&one, 27), pods(&two, 27)), (vec![6], vec![5]));
        // Who came first gives back what is not its share, and the other waits until it is free.
        asks(&one, "emails", 10);
        assert_eq!((pods(&one, 27), pods(&two, 27)), (vec![6], vec![1]));
        drop(two);
        assert_eq!(pods(&one, 27), [10]);
    }

    #[test]
    fn pods_of_other_loops_that_leave_are_counted() {
        let room = Arc::new(Room::default());
        let (one, two) = (Seat::take(&room, "a/db".into()), Seat::take(&room, "b/db".into()));
        asks(&one, "emails", 0);
        two.tell(std::iter::empty(), 8);
        assert_eq!(pods(&one, 27), [3]);
    }

    #[test]
    fn whose_queues_are_ours_is_known_to_all() {
        let room = Arc::new(Room::default());
        let seat = Seat::take(&room, "a/db".into());
        assert!(!seat.is_ours("c1/shop/emails"));
        room.set_owners(["c1/shop/emails".to_owned()].into());
        assert!(seat.is_ours("c1/shop/emails"));
        let other = Seat::take(&room, "b/db".into());
        assert!(!seat.is_told("emails"), "its pods are to be found out in another way");
        asks(&other, "emails", 0);
        assert!(seat.is_told("emails"));
    }
}
