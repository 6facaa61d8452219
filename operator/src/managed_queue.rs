//! A managed queue: what its `TaskQueue` asks for, and what is remembered of it.

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
pub struct DesiredQueue {
    pub manifest: Manifest,
    /// Grows with every change.
    pub generation: i64,
    /// Written beside the queue: another owner's queue is left alone.
    pub owner: String,
    /// The owner that the queue may be taken from.
    pub adopts: Option<String>,
}

/// A queue of ours.
pub(crate) struct ManagedQueue {
    pub(crate) desired: DesiredQueue,
    /// Whether the database was told.
    declared: bool,
    /// When it was refused last, which is not declared again with each pass.
    refused_at: Option<Instant>,
    /// Whether it was another owner's when the database was last polled.
    is_anothers: bool,
    /// Why it could not be told, so that this is logged once.
    pub(crate) refused: Option<Arc<Error>>,
    memory: Memory,
    reason: Option<(u32, &'static str)>,
    times: PodTimes,
}

/// Since when it has pods, waits for its first, or has none that is ready.
#[derive(Debug, Clone, Copy, Default)]
struct PodTimes {
    held: Option<Duration>,
    /// How long it had pods before that: another operator may have led then.
    before: Duration,
    unready: Option<Duration>,
    asked: Option<Duration>,
}

/// How many pods a queue has, and how they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedPods {
    pub(crate) pods: u32,
    pub(crate) ready: u32,
    pub(crate) not_starting: bool,
    /// Of the oldest pod.
    pub(crate) age: Duration,
}

impl ManagedQueue {
    /// Goes on with what is known of it from before.
    pub(crate) fn new(desired: DesiredQueue, before: Option<Self>) -> Self {
        match before {
            // The generation may be that of another queue's change.
            Some(old)
                if old.desired
                    == (DesiredQueue { generation: old.desired.generation, ..desired.clone() }) =>
            {
                old
            }
            old => {
                let is_anothers = old.as_ref().is_some_and(|old| old.is_anothers);
                let times = old.as_ref().map(|old| old.times).unwrap_or_default();
                let memory = old.map(|old| old.memory).unwrap_or_default();
                Self {
                    desired,
                    declared: false,
                    refused_at: None,
                    is_anothers,
                    refused: None,
                    memory,
                    reason: None,
                    times,
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
        let DesiredQueue { manifest, generation, owner, adopts } = &self.desired;
        let declaration = declaration(manifest, owner, *generation);
        match rowlock_queue::adopt(db, &declaration, adopts.as_deref()).await {
            Ok(_) => (self.declared, self.refused) = (true, None),
            // What passes says nothing of who the owner is.
            Err(error) if error.is_transient() && self.is_anothers => (),
            Err(error) => {
                self.refused_at = (!error.is_transient()).then(Instant::now);
                self.is_anothers |=
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

    /// Compares with what the database knows by now: it may be a backup of earlier days, or have given the
    /// queue to another.
    pub(crate) fn compare(&mut self, seen: Option<&Declared>) {
        let DesiredQueue { generation, owner, .. } = &self.desired;
        let same = seen.is_some_and(|seen| seen.owner == *owner && seen.generation >= *generation);
        self.declared &= same;
        let is_anothers = seen.is_some_and(|seen| seen.owner != *owner);
        if is_anothers != self.is_anothers {
            (self.is_anothers, self.refused_at) = (is_anothers, None);
        }
    }

    /// `now`: as in [`Self::decide`].
    pub(crate) fn observe(
        &mut self,
        stats: Option<&QueueStats>,
        observed_pods: ObservedPods,
        now: Duration,
    ) -> ObservedQueue {
        let ObservedPods { pods, ready, not_starting, age } = observed_pods;
        if pods == 0 {
            self.times.before = Duration::ZERO;
        } else if self.times.held.is_none() {
            self.times.before = age;
        }
        let since = |since: &mut Option<Duration>, holds: bool| *since = holds.then(|| since.unwrap_or(now));
        since(&mut self.times.held, pods > 0);
        since(&mut self.times.unready, pods > 0 && ready == 0);
        let lasts = |since: Option<Duration>| since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let PodTimes { held, before, unready, asked } = self.times;
        let observed = ObservedQueue {
            pods,
            not_starting,
            held_for: lasts(held) + before,
            unready_for: lasts(unready),
            waited_for: lasts(asked),
            stats: stats.map(backlog),
            ..ObservedQueue::of(&self.desired.manifest.spec)
        };
        // No worker of ours shall do its tasks.
        if self.is_anothers {
            return ObservedQueue { total: 0, suspend_scaling: false, ..observed };
        }
        observed
    }

    pub(crate) fn decide(&mut self, observed: &ObservedQueue, now: Duration) -> Decision {
        let decision = decide(observed, std::mem::take(&mut self.memory), now);
        self.memory = decision.memory.clone();
        let waits = observed.pods == 0 && decision.pods_desired > 0;
        self.times.asked = waits.then(|| self.times.asked.unwrap_or(now));
        decision
    }

    /// Says what was decided, when it is another thing than before.
    pub(crate) fn note(&mut self, decision: &Decision, pods: u32) {
        let reason = Some((decision.pods_desired, decision.reason.as_str()));
        if self.reason == reason {
            return;
        }
        let queue = self.desired.manifest.queue_name();
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

    fn managed() -> ManagedQueue {
        let text = "{ apiVersion: rowlock.dev/v1alpha1, kind: TaskQueue, metadata: { name: emails }, \
                    spec: { workers: { total: 1 } } }";
        let manifest = rowlock_crds::parse_manifests("file".as_ref(), text).unwrap().remove(0);
        ManagedQueue::new(DesiredQueue { manifest, generation: 1, owner: "o".into(), adopts: None }, None)
    }

    /// Before, each new leader began to count, so a leader that changed more often than every ten minutes
    /// left the connections of a full database with the queues that had them.
    #[test]
    fn a_turn_goes_on_under_the_next_leader() {
        let at = Duration::from_secs;
        let (mut first, mut next) = (managed(), managed());
        let observed_pods =
            |pods: u32, age: Duration| ObservedPods { pods, ready: pods, not_starting: false, age };
        let held = |managed: &mut ManagedQueue, observed_pods, now| {
            managed.observe(None, observed_pods, now).held_for
        };
        assert_eq!(held(&mut first, observed_pods(0, at(0)), at(50)), at(0));
        assert_eq!(held(&mut first, observed_pods(1, at(0)), at(60)), at(0));
        assert_eq!(held(&mut first, observed_pods(1, at(400)), at(460)), at(400));
        assert_eq!(held(&mut next, observed_pods(1, at(410)), at(3)), at(410));
        assert_eq!(held(&mut next, observed_pods(1, at(420)), at(13)), at(420));
        // A new place is a new turn.
        assert_eq!(held(&mut next, observed_pods(0, at(0)), at(20)), at(0));
        assert_eq!(held(&mut next, observed_pods(1, at(0)), at(30)), at(0));
    }
}
