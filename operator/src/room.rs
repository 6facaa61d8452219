//! Where the loops of one database meet, within one namespace. Each Secret has a loop of its own; here one of them looks at the database and listens for its NOTIFY for all, and they
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
    /// The loop that looks for all of them and listens for NOTIFY, and when it did last.
    looker: Option<(String, Instant)>,
    failed: Option<Failed>,
}

/// What the last loop that asked was told in place of an answer.
#[derive(Debug)]
struct Failed {
    /// The loop.
    who: String,
    error: Arc<Error>,
    /// So long nobody asks again, where two of them failed: one alone may have a reason of its own.
    until: Option<Instant>,
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
    /// When the server was started that this room is of.
    started_at: i64,
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
    /// A place for the loop of that name, which no other has. `started_at`: when the server was started, the same for all loops of a room.
    pub fn take(room: &Arc<Room>, name: String, started_at: i64) -> Self {
        room.inside().asked.insert(name.clone(), Asked::default());
        Self { room: Arc::clone(room), name, started_at }
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
        let now = Some(Instant::now());
        let wanted = if self.takes_it_on() { now } else { since };
        if let Some(seen) = self.news(wanted) {
            return (Ok(seen), false);
        }
        let Ok(_turn) = timeout(PATIENCE, self.room.looking.lock()).await else {
            return (Err(Arc::new(late())), false);
        };
        // Somebody else was at it.
        if let Some(seen) = self.news(wanted) {
            return (Ok(seen), false);
        }
        let asked = Instant::now();
        if let Some(error) = self.room.inside().failed.as_ref().and_then(|failed| failed.holds(asked)) {
            return (self.news(since).ok_or(error), false);
        }
        match look.await {
            Ok(seen) => {
                let seen = Arc::new(seen);
                // Of another server, that is no news for the loops that are here.
                if seen.started_at == self.started_at {
                    self.seen(&seen);
                } else {
                    self.room.inside().give_up(&self.name);
                }
                (Ok(seen), true)
            }
            Err(error) => {
                let error = Arc::new(error);
                let mut inside = self.room.inside();
                let also = inside.failed.take().is_some_and(|failed| failed.also(&self.name));
                let until =
                    (also && error.is_transient()).then(|| Instant::now() + rest_after(asked.elapsed()));
                inside.failed = Some(Failed { who: self.name.clone(), error: Arc::clone(&error), until });
                // Another may have more luck.
                inside.give_up(&self.name);
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
        let is_news = last.asked.elapsed() < last.took * 2 + last.rest() + NEWS;
        (is_news && since.is_none_or(|since| since <= last.asked)).then_some(last)
    }

    /// Whether this loop looks for all; so it does from now on where no other has lately.
    fn takes_it_on(&self) -> bool {
        let rest = self.room.looks.borrow().as_ref().map_or(Duration::ZERO, |look| look.rest());
        let mut inside = self.room.inside();
        let lately = |(name, at): &(String, Instant)| *name != self.name && at.elapsed() < NEWS + rest;
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
            // A server may say any number.
            if inside.owners.contains(&queue.owner) {
                (others, untold.saturating_add(live))
            } else {
                (others.saturating_add(live), untold)
            }
        })
    }

    /// Whether a loop here tends that queue, or is about to.
    pub(crate) fn is_ours(&self, queue: &Declared) -> bool {
        let inside = self.room.inside();
        inside.owners.contains(&queue.owner)
            || inside.asked.values().any(|asked| asked.queues.contains_key(&queue.stats.name))
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

impl Inside {
    /// Leaves it to another to look.
    fn give_up(&mut self, name: &str) {
        self.looker.take_if(|(looker, _)| looker == name);
    }
}

impl Failed {
    /// Whether this one is not the first loop that failed.
    fn also(&self, name: &str) -> bool {
        self.who != name || self.until.is_some()
    }

    fn holds(&self, now: Instant) -> Option<Arc<Error>> {
        self.until.filter(|until| now < *until).map(|_| Arc::clone(&self.error))
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
        inside.give_up(&self.name);
    }
}

#[cfg(test)]
mod tests;
