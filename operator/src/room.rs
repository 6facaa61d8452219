//! Where the loops of one database meet. Each Secret has a loop of its own; here one of them looks at the database and hears its bell for all, and they
//! tell each other what their queues ask for, so that all of them share its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rowlock_plan::{Connections, Decision, ObservedQueue, share};
use rowlock_queue::{Declared, QueueId};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::observe::Look;

/// So long the others take the last look for news, and leave it to its loop to look again: two ticks and a bit. Whoever waits in vain looks itself.
const NEWS: Duration = Duration::from_secs(5);

/// A database, for the loops that tend its queues.
#[derive(Debug, Default)]
pub struct Room {
    inside: Mutex<Inside>,
    looks: watch::Sender<Option<Arc<Look>>>,
    /// Somebody cannot wait until the next look is due.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    /// By the names of the loops.
    asked: BTreeMap<String, Asked>,
    /// Whose queues some loop here tends, or is about to.
    owners: BTreeSet<String>,
    /// The loop that looks for all of them, and since when it does or has last.
    looker: Option<(String, Instant)>,
}

#[derive(Debug, Default)]
struct Asked {
    queues: BTreeMap<String, (ObservedQueue, Decision)>,
    leaving: u32,
    asleep: BTreeSet<QueueId>,
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

    /// What another loop has seen, if that began after `since` and is news still; waits for it where it is on its way. `None`: this loop is the one to
    /// look from now on, until it fails.
    pub(crate) async fn seen_by_another(&self, since: Option<Instant>) -> Option<Arc<Look>> {
        if self.is_to_look(false) {
            return None;
        }
        let serves = |look: &Option<Arc<Look>>| {
            look.as_ref().is_some_and(|look| {
                since.is_none_or(|since| since <= look.asked) && look.asked.elapsed() < NEWS + look.rest()
            })
        };
        let mut looks = self.room.looks.subscribe();
        if !serves(&looks.borrow()) {
            self.room.wanted.notify_one();
        }
        let answer = timeout(NEWS, looks.wait_for(serves)).await;
        let look = answer.ok().and_then(Result::ok).and_then(|look| look.clone());
        if look.is_none() {
            self.is_to_look(true);
        }
        look
    }

    /// Whether this loop looks for all; so it does where nobody else does, or anyway.
    fn is_to_look(&self, anyway: bool) -> bool {
        let mut inside = self.room.inside();
        let another = inside.looker.as_ref().filter(|(name, _)| *name != self.name);
        let idle = another.is_none_or(|(_, since)| NEWS + self.rest() <= since.elapsed());
        if idle || anyway {
            inside.looker = Some((self.name.clone(), Instant::now()));
        }
        idle || anyway
    }

    fn rest(&self) -> Duration {
        self.room.looks.borrow().as_ref().map_or(Duration::ZERO, |look| look.rest())
    }

    /// Whether this loop is the one that looks.
    pub(crate) fn looks(&self) -> bool {
        self.room.inside().looker.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// Tells the others what was seen; a loop that saw nothing leaves it to another to look.
    pub(crate) fn show(&self, look: Option<&Arc<Look>>) {
        let mut inside = self.room.inside();
        let Some(look) = look else {
            inside.looker.take_if(|(name, _)| *name == self.name);
            return;
        };
        inside.looker = Some((self.name.clone(), Instant::now()));
        drop(inside);
        self.room.looks.send_replace(Some(Arc::clone(look)));
    }

    /// Returns when there is something to do: for the loop that looks, when another cannot wait until it does; for others, when it has, after
    /// `since`.
    pub(crate) async fn stirred(&self, since: Option<Instant>) {
        let mut looks = self.room.looks.subscribe();
        let news = |look: &Option<Arc<Look>>| {
            look.as_ref().is_some_and(|look| since.is_none_or(|since| since < look.asked))
        };
        if self.looks() {
            self.room.wanted.notified().await;
        } else {
            // It fails with the room alone, which this seat keeps.
            let _ = looks.wait_for(news).await;
        }
    }

    /// Of these queues, which are not this loop's: how many instances live for others than us, and how many for loops here that have not told of them yet,
    /// or cannot.
    pub(crate) fn instances<'a>(&self, elsewhere: impl Iterator<Item = &'a Declared>) -> (i64, i64) {
        let inside = self.room.inside();
        let told: BTreeSet<&String> = inside.asked.values().flat_map(|asked| asked.queues.keys()).collect();
        elsewhere.filter(|queue| !told.contains(&queue.stats.name)).fold((0, 0), |(others, untold), queue| {
            let live = queue.stats.instances;
            if inside.owners.contains(&queue.owner) {
                (others, untold + live)
            } else {
                (others + live, untold)
            }
        })
    }

    /// Tells the others what is asked for here, before connections limit it.
    pub(crate) fn tell<'a>(
        &self,
        queues: impl Iterator<Item = (&'a String, (&'a ObservedQueue, &'a Decision))>,
        leaving: u32,
    ) {
        let queues =
            queues.map(|(name, (observed, decision))| (name.clone(), (observed.clone(), decision.clone())));
        let queues = queues.collect();
        let mut inside = self.room.inside();
        let asked = inside.asked.entry(self.name.clone()).or_default();
        (asked.queues, asked.leaving) = (queues, leaving);
    }

    /// Tells the others which queues sleep here; which sleep anywhere.
    pub(crate) fn asleep(&self, here: BTreeSet<QueueId>) -> BTreeSet<QueueId> {
        let mut inside = self.room.inside();
        inside.asked.entry(self.name.clone()).or_default().asleep = here;
        inside.asked.values().flat_map(|asked| &asked.asleep).copied().collect()
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
        let mut inside = self.room.inside();
        inside.asked.remove(&self.name);
        inside.looker.take_if(|(name, _)| *name == self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rowlock_crds::TaskQueueSpec;
    use rowlock_plan::{Memory, decide};
    use rowlock_queue::QueueStats;

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

    /// A queue with so many instances.
    fn lives(queue: &str, owner: &str, instances: i64) -> Declared {
        let stats = QueueStats {
            queue: QueueId(1),
            name: queue.into(),
            paused: false,
            total_workers: 1,
            available: 0,
            scheduled: 0,
            retryable: 0,
            due_soon: 0,
            running: 0,
            dead: 0,
            oldest_available_seconds: None,
            completed_total: 0,
            arrivals_per_second: 0.0,
            instances,
            allocated: 0,
            busy: 0,
            mean_service_seconds: None,
        };
        Declared { stats, owner: owner.into(), generation: 1 }
    }

    #[test]
    fn whose_queues_are_ours_is_known_to_all() {
        let room = Arc::new(Room::default());
        let (one, two) = (Seat::take(&room, "a/db".into()), Seat::take(&room, "b/db".into()));
        let elsewhere = [lives("emails", "c1/shop/emails", 3), lives("letters", "c2/bank/letters", 4)];
        assert_eq!(one.instances(elsewhere.iter()), (7, 0));
        room.set_owners(["c1/shop/emails".to_owned()].into());
        assert_eq!(one.instances(elsewhere.iter()), (4, 3), "its pods are to be found out in another way");
        asks(&two, "emails", 0);
        assert_eq!(one.instances(elsewhere.iter()), (4, 0));
    }

    fn look() -> Arc<Look> {
        Arc::new(Look::of_nothing())
    }

    #[tokio::test(start_paused = true)]
    async fn one_looks_for_all_until_it_sees_nothing_or_goes() {
        let room = Arc::new(Room::default());
        let seats = ["a", "b", "c"].map(|name| Seat::take(&room, format!("{name}/db")));
        let [one, two, three] = &seats;
        assert!(one.seen_by_another(None).await.is_none(), "the first one looks");
        let seen = look();
        one.show(Some(&seen));
        for seat in [two, three] {
            assert!(seat.seen_by_another(None).await.is_some_and(|look| Arc::ptr_eq(&look, &seen)));
        }
        assert!((one.looks(), two.looks(), three.looks()) == (true, false, false));
        one.show(None);
        assert!(two.seen_by_another(None).await.is_none(), "somebody else looks");
        assert!(one.seen_by_another(None).await.is_some());
        let [_, two, three] = seats;
        drop(two);
        assert!(three.seen_by_another(None).await.is_none());
        assert!(three.looks());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_is_looked_for_at_once_and_looks_itself_in_the_end() {
        let room = Arc::new(Room::default());
        let (one, two) = (Seat::take(&room, "a/db".into()), Seat::take(&room, "b/db".into()));
        assert!(one.seen_by_another(None).await.is_none());
        one.show(Some(&look()));
        let since = Some(Instant::now());
        let answers = async {
            one.stirred(None).await;
            one.show(Some(&look()));
        };
        let (seen, ()) = tokio::join!(two.seen_by_another(since), answers);
        assert!(seen.is_some_and(|look| since <= Some(look.asked)));
        // Nobody answers.
        assert!(two.seen_by_another(Some(Instant::now())).await.is_none());
        assert!(two.looks() && !one.looks());
    }
}
