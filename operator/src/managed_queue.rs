//! A managed queue: what its `TaskQueue` asks for, and what the controller remembers about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rowlock_crds::Manifest;
use rowlock_plan::{Decision, Memory, ObservedQueue, PodTimes, decide};
use rowlock_queue::{Db, Declared, Error, QueueStats};

use crate::declaration::declaration;
use crate::enqueued::Enqueued;
use crate::observe::backlog;
use crate::shortage::Shortage;

/// How long after a refusal by the database a queue is declared again: the cause may be gone by then.
const DECLARE_AGAIN: Duration = Duration::from_secs(5);

/// What a `TaskQueue` asks for, and its owner.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredQueue {
    /// The queue, as its `TaskQueue` says.
    pub manifest: Manifest,
    /// Grows with every change.
    pub generation: i64,
    /// Stored with the queue. A queue of another owner is not changed.
    pub owner: String,
    /// The owner from which the queue may be taken over.
    pub adopts: Option<String>,
}

/// A queue that a controller manages.
pub(crate) struct ManagedQueue {
    pub(crate) desired: DesiredQueue,
    /// Whether the database has this declaration.
    declared: bool,
    /// When the database last refused it. A refused queue is not declared again in each pass.
    refused_at: Option<Instant>,
    /// Whether it had another owner in the last snapshot.
    is_anothers: bool,
    /// Why it could not be declared. The same error is logged once.
    pub(crate) refused: Option<Arc<Error>>,
    memory: Memory,
    reason: Option<(u32, &'static str)>,
    times: PodTimes,
    /// Why it gets fewer pods than it asks for, and since when this is reported.
    shortage: Option<(Duration, Shortage)>,
    enqueued: Enqueued,
}

/// How many pods a queue has, and their state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedPods {
    pub(crate) pods: u32,
    pub(crate) ready: u32,
    /// Those that the cluster has had no room for, for minutes.
    pub(crate) unplaced: u32,
    pub(crate) not_starting: bool,
    /// Their number cannot be changed.
    pub(crate) is_held: bool,
    /// The age of the oldest pod.
    pub(crate) age: Duration,
    /// How long a pod usually takes to start, where one has started.
    pub(crate) start: Option<Duration>,
}

impl ManagedQueue {
    /// Keeps what is remembered of the queue in `before`.
    pub(crate) fn new(desired: DesiredQueue, before: Option<Self>) -> Self {
        match before {
            // The generation may have grown because of a change to another queue.
            Some(old)
                if old.desired
                    == (DesiredQueue { generation: old.desired.generation, ..desired.clone() }) =>
            {
                old
            }
            old => {
                let is_anothers = old.as_ref().is_some_and(|old| old.is_anothers);
                let times = old.as_ref().map(|old| old.times).unwrap_or_default();
                let shortage = old.as_ref().and_then(|old| old.shortage.clone());
                let enqueued = old.as_ref().map(|old| old.enqueued.clone()).unwrap_or_default();
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
                    shortage,
                    enqueued,
                }
            }
        }
    }

    /// Makes the next pass declare the queue again.
    pub(crate) fn forget_database(&mut self) {
        (self.declared, self.refused_at) = (false, None);
        self.enqueued.forget_database();
    }

    /// Declares the queue, unless the database has this declaration already. Returns whether it was declared
    /// now.
    pub(crate) async fn declare(&mut self, db: &Db) -> bool {
        let refused_lately = self.refused_at.is_some_and(|at| at.elapsed() < DECLARE_AGAIN);
        if self.declared || refused_lately {
            return false;
        }
        let DesiredQueue { manifest, generation, owner, adopts } = &self.desired;
        let declaration = declaration(manifest, owner, *generation);
        match rowlock_queue::adopt(db, &declaration, adopts.as_deref()).await {
            Ok(_) => (self.declared, self.refused) = (true, None),
            // A transient error says nothing about the owner, so the refusal stays.
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

    /// Compares the queue with a snapshot: the database may have been restored from a backup, or the queue
    /// may have another owner by now.
    pub(crate) fn compare(&mut self, seen: Option<&Declared>) {
        let DesiredQueue { generation, owner, .. } = &self.desired;
        let same = seen.is_some_and(|seen| seen.owner == *owner && seen.generation >= *generation);
        self.declared &= same;
        let is_anothers = seen.is_some_and(|seen| seen.owner != *owner);
        if is_anothers != self.is_anothers {
            (self.is_anothers, self.refused_at) = (is_anothers, None);
        }
    }

    /// What the planner needs to know. `now` counts from when the reconciler was created.
    pub(crate) fn observe(
        &mut self,
        stats: Option<&QueueStats>,
        observed_pods: ObservedPods,
        now: Duration,
    ) -> ObservedQueue {
        let ObservedPods { pods, ready, unplaced, not_starting, is_held, age, start } = observed_pods;
        if let Some(stats) = stats {
            self.enqueued.note(stats);
        }
        let asked_for = ObservedQueue::of(&self.desired.manifest.spec);
        let mut observed = ObservedQueue {
            pods,
            // Pods that are being replaced may be ready beside the others.
            ready: ready.min(pods),
            unplaced: unplaced.min(pods),
            not_starting,
            stats: stats.map(backlog),
            pod_start: start.unwrap_or(asked_for.pod_start),
            ..asked_for
        };
        self.times.observe(&mut observed, age, now);
        // Another owner has the queue, so none of this operator's pods may run its tasks. A Deployment of the
        // user's own stays as it is. A queue that cannot get pods takes no connections from others.
        if is_held || self.is_anothers && self.desired.manifest.spec.target_ref.is_some() {
            return ObservedQueue { stalled: true, ..observed };
        }
        if self.is_anothers {
            return ObservedQueue { total: 0, suspend_scaling: false, ..observed };
        }
        observed
    }

    /// `now`: as in [`Self::observe`].
    pub(crate) fn decide(&mut self, observed: &ObservedQueue, now: Duration) -> Decision {
        let mut decision = decide(observed, std::mem::take(&mut self.memory), now);
        // Decisions are copied for the shared poller and for the status, which need no memory.
        self.memory = std::mem::take(&mut decision.memory);
        self.times.decided(observed, &decision, now);
        decision
    }

    /// Notes why connections allow fewer pods than the queue asks for. `now`: as in [`Self::observe`].
    pub(crate) fn note_shortage(&mut self, shortage: Option<Shortage>, now: Duration) {
        let before = self.shortage.take();
        self.shortage = shortage.map(|shortage| shortage.or_before(before, now));
    }

    /// Why it gets fewer pods than it asks for, if connections are the reason.
    pub(crate) fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_ref().map(|(_, shortage)| shortage)
    }

    /// Tasks that were enqueued since its controller began.
    pub(crate) fn enqueued(&self) -> u64 {
        self.enqueued.total()
    }

    /// What becomes of the queue without its `TaskQueue`.
    pub(crate) fn what_stays(&self) -> String {
        match &self.desired.manifest.spec.target_ref {
            Some(target) => {
                format!("the Deployment {} keeps its pods, which go on with its tasks", target.name)
            }
            None => "draining its instances; its tasks are kept".to_owned(),
        }
    }

    /// Logs the decision, if it has changed.
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

    fn ready(pods: u32) -> ObservedPods {
        let (age, start) = (Duration::ZERO, None);
        ObservedPods { pods, ready: pods, unplaced: 0, not_starting: false, is_held: false, age, start }
    }

    #[test]
    fn decisions_see_how_many_pods_are_ready_and_how_long_a_start_takes() {
        let mut managed = managed();
        let mut observe = |observed_pods| {
            let seen = managed.observe(None, observed_pods, Duration::ZERO);
            (seen.pods, seen.ready, seen.pod_start)
        };
        let (_, _, usual) = observe(ready(0));
        let took = Duration::from_secs(42);
        assert_eq!(observe(ObservedPods { ready: 1, start: Some(took), ..ready(3) }), (3, 1, took));
        // During a rollout, old and new pods are ready.
        assert_eq!(observe(ObservedPods { ready: 4, ..ready(3) }), (3, 3, usual));
    }

    #[test]
    fn a_users_deployment_keeps_its_pods_if_another_owner_has_the_queue() {
        let mut managed = managed();
        managed.is_anothers = true;
        let observed = managed.observe(None, ready(3), Duration::ZERO);
        assert_eq!((observed.total, observed.suspend_scaling), (0, false));
        let target = serde_json::json!({ "name": "shop" });
        managed.desired.manifest.spec.target_ref = serde_json::from_value(target).unwrap();
        let observed = managed.observe(None, ready(3), Duration::ZERO);
        assert_eq!(managed.decide(&observed, Duration::ZERO).pods_desired, 3);
        assert!(managed.what_stays().starts_with("the Deployment shop keeps its pods"));
    }

    /// Before, a queue whose Deployment is missing took the only connection in turn with another one, and
    /// never used it.
    #[test]
    fn a_queue_that_cannot_get_pods_asks_for_none() {
        let mut managed = managed();
        managed.desired.manifest.spec.workers.scaling = Some(rowlock_crds::ScalingMode::Fixed);
        let mut asks = |is_held| {
            let observed = managed.observe(None, ObservedPods { is_held, ..ready(0) }, Duration::ZERO);
            let decision = managed.decide(&observed, Duration::ZERO);
            (decision.pods_desired, decision.reason)
        };
        assert_eq!(asks(false), (1, rowlock_plan::Reason::Fixed));
        assert_eq!(asks(true), (0, rowlock_plan::Reason::Stalled));
    }

    /// Before, each new leader counted from zero. If the leader changed more often than every ten minutes,
    /// the same queues kept all connections of a full database.
    #[test]
    fn a_turn_goes_on_under_the_next_leader() {
        let at = Duration::from_secs;
        let (mut first, mut next) = (managed(), managed());
        let observed_pods = |pods: u32, age: Duration| ObservedPods { age, ..ready(pods) };
        let held = |managed: &mut ManagedQueue, observed_pods, now| {
            managed.observe(None, observed_pods, now).held_for
        };
        assert_eq!(held(&mut first, observed_pods(0, at(0)), at(50)), at(0));
        assert_eq!(held(&mut first, observed_pods(1, at(0)), at(60)), at(0));
        assert_eq!(held(&mut first, observed_pods(1, at(400)), at(460)), at(400));
        assert_eq!(held(&mut next, observed_pods(1, at(410)), at(3)), at(410));
        assert_eq!(held(&mut next, observed_pods(1, at(420)), at(13)), at(420));
        // A queue that gets pods again starts a new turn.
        assert_eq!(held(&mut next, observed_pods(0, at(0)), at(20)), at(0));
        assert_eq!(held(&mut next, observed_pods(1, at(0)), at(30)), at(0));
    }
}
