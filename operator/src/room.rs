//! Where the loops of one database meet. Each Secret has a loop of its own; here one of them looks at the database and hears its bell for all, and they
//! tell each other what their queues ask for, so that all of them share its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rowlock_plan::{Connections, Decision, ObservedQueue, share};
use rowlock_queue::{Declared, Error, QueueId};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::observe::{Look, PATIENCE, late, rest_after};

/// So long a look is news for the loops that leave it to another to look: two ticks and a bit. One that has not looked for longer does so no more.
const NEWS: Duration = Duration::from_secs(5);

/// A database, for the loops that tend its queues.
#[derive(Debug, Default)]
pub struct Room {
    inside: Mutex<Inside>,
    looks: watch::Sender<Option<Arc<Look>>>,
    /// Held while somebody looks: all others wait for what comes of it.
    looking: tokio::sync::Mutex<()>,
    /// A queue has fallen asleep.
    asleep: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    /// By the names of the loops.
    asked: BTreeMap<String, Asked>,
    /// Whose queues some loop here tends, or is about to.
    owners: BTreeSet<String>,
    /// The loop that looks for all of them and hears the bell, and when it did last.
    looker: Option<(String, Instant)>,
    /// What was said in place of an answer, and until when nobody asks again.
    failed: Option<(Arc<Error>, Instant)>,
}

#[derive(Debug, Default)]
struct Asked {
    user: Option<String>,
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

    /// What was seen of the database: by the loop that looks for all, or by this one with `look`, where it is that loop, or what was seen is old, or began
    /// before `since`. Only one asks at a time. `true`: this one did.
    ///
    /// # Errors
    /// What the database said in place of an answer, to whoever asked last.
    pub(crate) async fn look(
        &self,
        since: Option<Instant>,
        look: impl Future<Output = Result<Look, Error>>,
    ) -> (Result<Arc<Look>, Arc<Error>>, bool) {
        let since = if self.takes_it_on() { Some(Instant::now()) } else { since };
        if let Some(seen) = self.news(since) {
            return (Ok(seen), false);
        }
        let Ok(_turn) = timeout(PATIENCE, self.room.looking.lock()).await else {
            return (Err(Arc::new(late())), false);
        };
        // Somebody else was at it.
        if let Some(seen) = self.news(since) {
            return (Ok(seen), false);
        }
        if let Some((error, until)) = &self.room.inside().failed
            && Instant::now() < *until
        {
            return (Err(Arc::clone(error)), false);
        }
        let asked = Instant::now();
        match look.await {
            Ok(seen) => {
                let seen = Arc::new(seen);
                self.seen(&seen);
                (Ok(seen), true)
            }
            Err(error) => {
                let error = Arc::new(error);
                let mut inside = self.room.inside();
                inside.failed = Some((Arc::clone(&error), Instant::now() + rest_after(asked.elapsed())));
                // Another may have more luck.
                inside.looker.take_if(|(name, _)| *name == self.name);
                (Err(error), true)
            }
        }
    }

    fn seen(&self, look: &Arc<Look>) {
        let mut inside = self.room.inside();
        inside.failed = None;
        if let Some((_, at)) = inside.looker.as_mut().filter(|(name, _)| *name == self.name) {
            *at = Instant::now();
        }
        drop(inside);
        self.room.looks.send_replace(Some(Arc::clone(look)));
    }

    /// The last look, while it is news.
    fn news(&self, since: Option<Instant>) -> Option<Arc<Look>> {
        let last = self.room.looks.borrow().clone()?;
        let is_news = last.asked.elapsed() < last.took + last.rest() + NEWS;
        (is_news && since.is_none_or(|since| since <= last.asked)).then_some(last)
    }

    /// Whether this loop looks for all; so it does from now on where no other has lately.
    fn takes_it_on(&self) -> bool {
        let rest = self.room.looks.borrow().as_ref().map_or(Duration::ZERO, |look| look.rest());
        let mut inside = self.room.inside();
        let lately = |(_, at): &(String, Instant)| at.elapsed() < NEWS + rest;
        if !inside.looker.as_ref().is_some_and(lately) {
            inside.looker = Some((self.name.clone(), Instant::now()));
        }
        inside.looker.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// Whether this loop is the one that looks for all.
    pub(crate) fn looks(&self) -> bool {
        self.room.inside().looker.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// Returns when there is something to do: for the loop that looks, when a queue of another fell asleep; for others, when something newer than
    /// `since` was seen.
    pub(crate) async fn stirred(&self, since: Option<Instant>) {
        let since = since.unwrap_or_else(Instant::now);
        let mut looks = self.room.looks.subscribe();
        if self.looks() {
            self.room.asleep.notified().await;
        } else {
            let newer = |look: &Option<Arc<Look>>| look.as_ref().is_some_and(|look| since < look.asked);
            // It fails with the room alone, which this seat keeps.
            let _ = looks.wait_for(newer).await;
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

    /// Tells the others what is asked for here, by which user, before connections limit it.
    pub(crate) fn tell<'a>(
        &self,
        user: Option<&str>,
        queues: impl Iterator<Item = (&'a String, (&'a ObservedQueue, &'a Decision))>,
        leaving: u32,
    ) {
        let queues =
            queues.map(|(name, (observed, decision))| (name.clone(), (observed.clone(), decision.clone())));
        let queues = queues.collect();
        let mut inside = self.room.inside();
        let asked = inside.asked.entry(self.name.clone()).or_default();
        (asked.user, asked.queues, asked.leaving) = (user.map(str::to_owned), queues, leaving);
    }

    /// Tells the others which queues sleep here; which sleep anywhere.
    pub(crate) fn sleep(&self, here: BTreeSet<QueueId>) -> BTreeSet<QueueId> {
        let mut inside = self.room.inside();
        let asked = inside.asked.entry(self.name.clone()).or_default();
        let more = !here.is_subset(&asked.asleep);
        asked.asleep = here;
        let all = inside.asked.values().flat_map(|asked| &asked.asleep).copied().collect();
        drop(inside);
        if more && !self.looks() {
            self.room.asleep.notify_one();
        }
        all
    }

    /// Pods on their way out, over all loops, or those of one user.
    pub(crate) fn leaving(&self, of: Option<&str>) -> u32 {
        let inside = self.room.inside();
        inside.asked.values().filter(|asked| asked.is_of(of)).map(|asked| asked.leaving).sum()
    }

    /// What connections leave of what was asked for here, in the order of the queues' names: every loop comes to the same. Over all loops, or those of
    /// one user.
    pub(crate) fn share(&self, connections: &Connections, of: Option<&str>) -> Vec<Decision> {
        let inside = self.room.inside();
        let all: BTreeMap<_, _> = inside
            .asked
            .iter()
            .filter(|(_, asked)| asked.is_of(of))
            .flat_map(|(seat, asked)| asked.queues.iter().map(move |(queue, wish)| ((queue, seat), wish)))
            .collect();
        let (observed, mut decisions): (Vec<_>, Vec<_>) = all.values().map(|wish| (*wish).clone()).unzip();
        share(connections, &observed, &mut decisions);
        let of = all.keys().zip(decisions);
        of.filter(|((_, seat), _)| **seat == self.name).map(|(_, decision)| decision).collect()
    }
}

impl Asked {
    fn is_of(&self, user: Option<&str>) -> bool {
        user.is_none() || self.user.as_deref() == user
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
    use std::future::{Ready, ready};

    /// A queue that always asks for ten pods of ten workers, and holds so many.
    fn asks(seat: &Seat, queue: &str, pods: u32) {
        let observed =
            ObservedQueue { pods, per_pod: 10, ..ObservedQueue::of(&TaskQueueSpec::with_workers(100)) };
        let decision = decide(&observed, Memory::default(), Duration::ZERO);
        assert_eq!(decision.pods_desired, 10);
        seat.tell(Some("shop"), [(&queue.to_owned(), (&observed, &decision))].into_iter(), 0);
    }

    fn pods(seat: &Seat, limit: u32) -> Vec<u32> {
        let connections = Connections { limit, others: 0, leaving: seat.leaving(None) };
        seat.share(&connections, None).iter().map(|decision| decision.pods_desired).collect()
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
        two.tell(None, std::iter::empty(), 8);
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

    fn sees() -> Ready<Result<Look, Error>> {
        ready(Ok(Look::of_nothing()))
    }

    fn fails() -> Ready<Result<Look, Error>> {
        ready(Err(Error::Timeout))
    }

    #[tokio::test(start_paused = true)]
    async fn one_looks_for_all_until_it_fails_or_goes() {
        let room = Arc::new(Room::default());
        let [one, two, three] = ["a", "b", "c"].map(|name| Seat::take(&room, format!("{name}/db")));
        let (seen, itself) = one.look(None, sees()).await;
        let seen = seen.ok();
        assert!(itself && one.looks());
        for seat in [&two, &three] {
            let (look, itself) = seat.look(None, fails()).await;
            assert!(!itself && !seat.looks());
            assert!(Arc::ptr_eq(&look.unwrap(), seen.as_ref().unwrap()));
        }
        // It looks each time.
        let (failed, itself) = one.look(None, fails()).await;
        assert!(itself && failed.is_err() && !one.looks());
        // For as long as that took, times nineteen, nobody asks.
        while !two.look(None, sees()).await.1 {}
        assert!(two.looks());
        assert!(!one.look(None, fails()).await.1, "it leaves it to the other now");
        drop(two);
        assert!(three.look(None, sees()).await.1 && three.looks());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_changed_something_looks_at_once_and_all_have_it() {
        let room = Arc::new(Room::default());
        let [one, two] = ["a", "b"].map(|name| Seat::take(&room, format!("{name}/db")));
        let before = one.look(None, sees()).await.0.unwrap().asked;
        let changed = Some(Instant::now());
        let (after, itself) = two.look(changed, sees()).await;
        assert!(itself && Some(after.unwrap().asked) >= changed);
        assert!(one.looks() && !two.looks(), "that does not make it the one who looks");
        two.stirred(Some(before)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_asks_at_a_time_and_what_takes_long_in_vain_is_not_asked_again_at_once() {
        let room = Arc::new(Room::default());
        let [one, two] = ["a", "b"].map(|name| Seat::take(&room, format!("{name}/db")));
        let slow = async {
            // Not of tokio's clock, which stands still here.
            std::thread::sleep(Duration::from_millis(50));
            tokio::task::yield_now().await;
            fails().await
        };
        let ((first, asked), (second, also)) = tokio::join!(one.look(None, slow), two.look(None, sees()));
        assert!(first.is_err() && second.is_err());
        assert_eq!((asked, also), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_who_looks_hears_who_falls_asleep() {
        let room = Arc::new(Room::default());
        let [one, two] = ["a", "b"].map(|name| Seat::take(&room, format!("{name}/db")));
        assert!(one.look(None, sees()).await.1);
        two.sleep([QueueId(7)].into());
        one.stirred(None).await;
        assert_eq!(one.sleep([QueueId(3)].into()), [QueueId(3), QueueId(7)].into());
    }
}
