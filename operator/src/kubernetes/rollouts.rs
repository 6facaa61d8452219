//! Rollout slots: if the operator itself changes the pods of many queues, for example to a new worker image,
//! only a few queues roll at a time.
//!
//! Rollouts in progress are read from the Deployments, so the next leader knows them. Waiting queues get
//! slots in the order of their names. If the pods of a new release do not start, their queues keep their
//! slots, so that the other queues keep their working pods. But a queue that had no ready pod before says
//! nothing about the release: it loses its slot after the progress deadline of its Deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rowlock_crds::annotations;

use crate::kubernetes::api::kept::Deployment;
use crate::kubernetes::deployment::target::is_of_an_operator;

/// The namespace and name of a Deployment.
pub(crate) type NamespacedName = (String, String);

/// How long after a rollout has begun the watch may not show it yet.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// How long after its last request a queue counts as waiting. Controllers repeat their requests every few
/// seconds.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The rollout slots of all queues that this operator manages.
#[derive(Debug)]
pub(crate) struct Rollouts {
    at_once: usize,
    waiting: BTreeMap<NamespacedName, Instant>,
    begun: BTreeMap<NamespacedName, Instant>,
}

impl Rollouts {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, waiting: BTreeMap::new(), begun: BTreeMap::new() }
    }

    /// Takes a slot for a Deployment, if one is free. `in_progress`: the Deployments that hold a slot.
    pub(crate) fn take(
        &mut self,
        name: &NamespacedName,
        in_progress: &BTreeSet<NamespacedName>,
        now: Instant,
    ) -> bool {
        self.waiting.insert(name.clone(), now);
        self.waiting.retain(|_, asked| now.duration_since(*asked) < FORGOTTEN);
        self.begun.retain(|_, begun| now.duration_since(*begun) < WATCH_DELAY);
        let unseen = self.begun.keys().filter(|begun| !in_progress.contains(*begun));
        let others = in_progress.iter().chain(unseen).filter(|one| *one != name).count();
        // A Deployment that already holds a slot need not wait: a newer release replaces the one that it
        // rolls to.
        let before = if in_progress.contains(name) {
            0
        } else {
            let before = self.waiting.range(..name.clone()).filter(|(one, _)| !in_progress.contains(*one));
            // More make no difference.
            before.take(self.at_once).count()
        };
        let may = others + before < self.at_once;
        if may {
            self.waiting.remove(name);
            self.begun.insert(name.clone(), now);
        }
        may
    }

    /// Releases a slot that was not used.
    pub(crate) fn release(&mut self, name: &NamespacedName) {
        self.waiting.remove(name);
        self.begun.remove(name);
    }

    /// How many queues wait for a slot.
    pub(crate) fn waiting(&self, now: Instant) -> usize {
        self.waiting.values().filter(|asked| now.duration_since(**asked) < FORGOTTEN).count()
    }
}

/// Values of the slot's annotation: whether the queue had ready pods when it took the slot.
const READY: &str = "ready";
const UNREADY: &str = "unready";

/// The value of the annotation for a slot that this Deployment takes.
pub(crate) fn rollout_slot(before: Option<&Deployment>) -> &'static str {
    let status = before.and_then(|before| before.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
    if ready > 0 { READY } else { UNREADY }
}

/// Whether a Deployment holds a slot: it has taken one, and still has pods of an older template.
pub(crate) fn is_in_progress(deployment: &Deployment) -> bool {
    // A user may have copied the annotation to a Deployment of their own.
    let slot = deployment.metadata.annotations.get(annotations::ROLLOUT_SLOT);
    let Some(slot) = slot.filter(|_| is_of_an_operator(&deployment.metadata)) else { return false };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if wanted == 0 || status.observed_generation < deployment.metadata.generation {
        return wanted > 0;
    }
    let mut conditions = status.conditions.iter().flatten();
    let has_failed = conditions.any(|one| one.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let updated = status.updated_replicas.unwrap_or_default();
    // New pods alone, even fewer than wanted, end the rollout: a quota may reject the rest.
    let old = updated < status.replicas.unwrap_or_default() || updated == 0;
    old && !(slot == UNREADY && has_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rowlock_crds::api;
    use serde_json::{Value, json};

    fn named(name: &str) -> NamespacedName {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn a_few_queues_roll_at_once_and_the_others_in_the_order_of_their_names() {
        let (mut rollouts, now) = (Rollouts::new(2), Instant::now());
        let mut in_progress = BTreeSet::new();
        let mut take = |name: &str, in_progress: &BTreeSet<NamespacedName>, at: u64| {
            rollouts.take(&named(name), in_progress, now + Duration::from_secs(at))
        };
        // No queue waits yet, so the first ones to ask get the slots.
        assert!(take("c", &in_progress, 0));
        assert!(take("b", &in_progress, 0));
        // A rollout is counted before the watch shows it, and not twice afterwards.
        assert!(!take("e", &in_progress, 1));
        in_progress.extend([named("c"), named("b")]);
        assert!(!take("d", &in_progress, 2));
        in_progress.remove(&named("b"));
        assert!(!take("e", &in_progress, 10), "d waits, and its name comes first");
        assert!(take("d", &in_progress, 10));
        in_progress.clear();
        assert!(take("e", &in_progress, 20));
    }

    #[test]
    fn a_newer_release_takes_over_the_slots_of_one_that_does_not_start() {
        let (mut rollouts, now) = (Rollouts::new(2), Instant::now());
        let stuck = BTreeSet::from([named("b"), named("d")]);
        assert!(!rollouts.take(&named("a"), &stuck, now), "both slots are taken");
        assert!(rollouts.take(&named("b"), &stuck, now));
        assert!(rollouts.take(&named("d"), &stuck, now));
        assert!(!rollouts.take(&named("c"), &stuck, now));
    }

    #[test]
    fn an_unused_slot_is_free_for_another_queue() {
        let (mut rollouts, now, none) = (Rollouts::new(1), Instant::now(), BTreeSet::new());
        assert!(rollouts.take(&named("a"), &none, now));
        assert!(!rollouts.take(&named("b"), &none, now));
        rollouts.release(&named("a"));
        assert!(rollouts.take(&named("b"), &none, now));
    }

    #[test]
    fn a_queue_that_stops_asking_does_not_block_the_others() {
        let (mut rollouts, now) = (Rollouts::new(1), Instant::now());
        let in_progress = BTreeSet::from([named("x")]);
        assert!(!rollouts.take(&named("a"), &in_progress, now));
        assert!(!rollouts.take(&named("b"), &BTreeSet::new(), now));
        assert_eq!(rollouts.waiting(now), 2);
        assert!(rollouts.take(&named("b"), &BTreeSet::new(), now + FORGOTTEN));
        assert_eq!(rollouts.waiting(now + FORGOTTEN), 0);
    }

    #[test]
    fn a_slot_lasts_until_no_pod_is_old() {
        let ours = json!([{
            "apiVersion": api::API_VERSION, "kind": api::KIND, "name": "a", "uid": "u", "controller": true
        }]);
        let deployment = |owners: &Value, slot: &str, replicas: i32, status: &Value| {
            let annotations =
                if slot.is_empty() { json!({}) } else { json!({ annotations::ROLLOUT_SLOT: slot }) };
            let metadata = json!({ "annotations": annotations, "generation": 3, "ownerReferences": owners });
            let template = json!({ "metadata": {}, "spec": { "containers": [] } });
            let spec = json!({ "replicas": replicas, "selector": {}, "template": template });
            let deployment = json!({ "metadata": metadata, "spec": spec, "status": status });
            serde_json::from_value::<Deployment>(deployment).unwrap()
        };
        let check = |slot: &str, replicas: i32, status: Value, expected: bool| {
            let found = is_in_progress(&deployment(&ours, slot, replicas, &status));
            assert_eq!(found, expected, "{slot} {replicas} {status}");
        };
        let done = json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 4 });
        check(READY, 4, done.clone(), false);
        check(READY, 4, json!({ "observedGeneration": 2, "replicas": 4, "updatedReplicas": 4 }), true);
        let begun = json!({ "observedGeneration": 3, "replicas": 5, "updatedReplicas": 1 });
        check(READY, 4, begun.clone(), true);
        check(READY, 4, json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3 }), false);
        check(READY, 4, json!({ "observedGeneration": 3 }), true);
        check(READY, 4, json!(null), true);
        check(READY, 0, begun.clone(), false);
        check("", 4, begun.clone(), false);
        let copied = deployment(&json!([]), READY, 4, &begun);
        assert!(!is_in_progress(&copied), "a Deployment of a user takes no slot");
        // A rollout that fails keeps its slot, unless no pod was ready before it either.
        let mut stuck = begun;
        stuck["conditions"] =
            json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
        check(READY, 4, stuck.clone(), true);
        check(UNREADY, 4, stuck.clone(), false);
        stuck["observedGeneration"] = 2.into();
        check(UNREADY, 4, stuck, true);
    }
}
