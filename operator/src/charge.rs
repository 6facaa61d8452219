//! A queue that the operator was entrusted with, and what it remembers of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rowlock_crds::Manifest;
use rowlock_plan::{Decision, Memory, ObservedQueue, decide};
use rowlock_queue::{Db, Declared, Error, QueueStats};

use crate::declaration::declaration;
use crate::observe::backlog;

/// How long after the database refused a queue it is asked again: what was in the way may have gone.
const DECLARE_AGAIN: Duration = Duration::from_secs(5);

/// What shall be, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub manifest: Manifest,
    /// Grows with every change.
    pub generation: i64,
    /// Written beside the queue: another owner's queue is left alone.
    pub owner: String,
    /// The owner that the queue may be taken from.
    pub adopts: Option<String>,
}

/// A queue of ours.
pub(crate) struct Tended {
    pub(crate) charge: Charge,
    /// Whether the database was told.
    declared: bool,
    /// When it was refused last, which is not asked for with each look.
    refused_at: Option<Instant>,
    /// Whether it was another owner's when the database was last looked at.
    anothers: bool,
    /// Why it could not be told, so that this is logged once.
    pub(crate) refused: Option<Arc<Error>>,
    memory: Memory,
    reason: Option<(u32, &'static str)>,
    place: Place,
}

/// Since when it has pods, waits for its first, or has none that is ready.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    held: Option<Duration>,
    /// How long it had pods before that: another operator may have led then.
    before: Duration,
    unready: Option<Duration>,
    asked: Option<Duration>,
}

/// How many pods a queue has, and how they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Having {
    pub(crate) pods: u32,
    pub(crate) ready: u32,
    pub(crate) faltering: bool,
    /// Of the oldest pod.
    pub(crate) age: Duration,
}

impl Tended {
    /// Goes on with what is known of it from before.
    pub(crate) fn new(charge: Charge, before: Option<Self>) -> Self {
        match before {
            // The generation may be that of another queue's change.
            Some(old) if old.charge == (Charge { generation: old.charge.generation, ..charge.clone() }) => {
                old
            }
            old => {
                let anothers = old.as_ref().is_some_and(|old| old.anothers);
                let place = old.as_ref().map(|old| old.place).unwrap_or_default();
                let memory = old.map(|old| old.memory).unwrap_or_default();
                Self {
                    charge,
                    declared: false,
                    refused_at: None,
                    anothers,
                    refused: None,
                    memory,
                    reason: None,
                    place,
                }
            }
        }
    }

    /// To be declared anew.
    pub(crate) fn forget_database(&mut self) {
        (self.declared, self.refused_at) = (false, None);
    }

    /// Tells the database, where it does not know yet; whether it took that in now.
    pub(crate) async fn declare(&mut self, db: &Db) -> bool {
        let refused_lately = self.refused_at.is_some_and(|at| at.elapsed() < DECLARE_AGAIN);
        if self.declared || refused_lately {
            return false;
        }
        let Charge { manifest, generation, owner, adopts } = &self.charge;
        let declaration = declaration(manifest, owner, *generation);
        match rowlock_queue::adopt(db, &declaration, adopts.as_deref()).await {
            Ok(_) => (self.declared, self.refused) = (true, None),
            // What passes says nothing of who the owner is.
            Err(error) if error.is_transient() && self.anothers => (),
            Err(error) => {
                self.refused_at = (!error.is_transient()).then(Instant::now);
                self.anothers |=
                    matches!(&error, Error::Refused { code, .. } if code == rowlock_queue::NOT_THE_OWNER);
                let known = self.refused.as_ref().is_some_and(|known| known.to_string() == error.to_string());
                if !known {
                    let queue = manifest.queue_name();
                    tracing::error!(queue, %error, "the queue cannot be declared; trying again");
                    self.refused = Some(Arc::new(error));
                }
            }
        }
        self.declared
    }

    /// Compares with what the database knows by now: it may be a backup of earlier days, or have given the queue to another.
    pub(crate) fn compare(&mut self, seen: Option<&Declared>) {
        let Charge { generation, owner, .. } = &self.charge;
        let same = seen.is_some_and(|seen| seen.owner == *owner && seen.generation >= *generation);
        self.declared &= same;
        let anothers = seen.is_some_and(|seen| seen.owner != *owner);
        if anothers != self.anothers {
            (self.anothers, self.refused_at) = (anothers, None);
        }
    }

    /// `now`: as in [`Self::decide`].
    pub(crate) fn observe(
        &mut self,
        stats: Option<&QueueStats>,
        having: Having,
        now: Duration,
    ) -> ObservedQueue {
        let Having { pods, ready, faltering, age } = having;
        if pods == 0 {
            self.place.before = Duration::ZERO;
        } else if self.place.held.is_none() {
            self.place.before = age;
        }
        let since = |since: &mut Option<Duration>, holds: bool| *since = holds.then(|| since.unwrap_or(now));
        since(&mut self.place.held, pods > 0);
        since(&mut self.place.unready, pods > 0 && ready == 0);
        let lasts = |since: Option<Duration>| since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let Place { held, before, unready, asked } = self.place;
        let observed = ObservedQueue {
            pods,
            faltering,
            held_for: lasts(held) + before,
            unready_for: lasts(unready),
            waited_for: lasts(asked),
            stats: stats.map(backlog),
            ..ObservedQueue::of(&self.charge.manifest.spec)
        };
        // No worker of ours shall do its tasks.
        if self.anothers {
            return ObservedQueue { total: 0, suspend_scaling: false, ..observed };
        }
        observed
    }

    pub(crate) fn decide(&mut self, observed: &ObservedQueue, now: Duration) -> Decision {
        let decision = decide(observed, std::mem::take(&mut self.memory), now);
        self.memory = decision.memory.clone();
        let waits = observed.pods == 0 && decision.pods_desired > 0;
        self.place.asked = waits.then(|| self.place.asked.unwrap_or(now));
        decision
    }

    /// Says what was decided, when it is another thing than before.
    pub(crate) fn note(&mut self, decision: &Decision, pods: u32) {
        let reason = Some((decision.pods_desired, decision.reason.as_str()));
        if self.reason == reason {
            return;
        }
        let queue = self.charge.manifest.queue_name();
        if decision.pods_desired == pods {
            tracing::debug!(queue, "{decision}");
        } else {
            tracing::info!(queue, "{decision}");
        }
        self.reason = reason;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tended() -> Tended {
        let text = "{ apiVersion: rowlock.dev/v1alpha1, kind: TaskQueue, metadata: { name: emails }, \
                    spec: { workers: { total: 1 } } }";
        let manifest = rowlock_crds::parse_manifests("file".as_ref(), text).unwrap().remove(0);
        Tended::new(Charge { manifest, generation: 1, owner: "o".into(), adopts: None }, None)
    }

    /// Before, each new leader began to count, so a leader that changed more often than every ten minutes
    /// left the connections of a full database with the queues that had them.
    #[test]
    fn a_turn_goes_on_under_the_next_leader() {
        let at = Duration::from_secs;
        let (mut first, mut next) = (tended(), tended());
        let having = |pods: u32, age: Duration| Having { pods, ready: pods, faltering: false, age };
        let held = |tended: &mut Tended, having, now| tended.observe(None, having, now).held_for;
        assert_eq!(held(&mut first, having(0, at(0)), at(50)), at(0));
        assert_eq!(held(&mut first, having(1, at(0)), at(60)), at(0));
        assert_eq!(held(&mut first, having(1, at(400)), at(460)), at(400));
        assert_eq!(held(&mut next, having(1, at(410)), at(3)), at(410));
        assert_eq!(held(&mut next, having(1, at(420)), at(13)), at(420));
        // A new place is a new turn.
        assert_eq!(held(&mut next, having(0, at(0)), at(20)), at(0));
        assert_eq!(held(&mut next, having(1, at(0)), at(30)), at(0));
    }
}
