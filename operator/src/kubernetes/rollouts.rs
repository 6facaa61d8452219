//! Whose pods are changed when the operator itself brings other ones, such as a new worker: a few queues at a
//! time.
//!
//! Rollouts in progress are read from the Deployments, so the next leader knows them; who may begin is
//! settled by the order of names. A release that does not start keeps its slots: the others go on with what
//! they have. But a queue none of whose pods was ready before proves nothing, and gives its slot up when
//! Kubernetes has given up hope.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use rowlock_crds::annotations;

/// The namespace and name of a Deployment.
pub(crate) type NamespacedName = (String, String);

/// For so long after it began, a watch may not show that it did.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// Who has not asked again for so long does not wait any more; controllers ask every few seconds.
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

    /// Whether the pods of this one may be changed now, with so many under way.
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
        // Who has a slot and asks has pods of a release that was replaced: it waits for nobody, nor for
        // itself.
        let before = if in_progress.contains(name) {
            0
        } else {
            self.waiting.range(..name.clone()).filter(|(one, _)| !in_progress.contains(*one)).count()
        };
        let may = others + before < self.at_once;
        if may {
            self.waiting.remove(name);
            self.begun.insert(name.clone(), now);
        }
        may
    }

    /// Takes a slot back that was not used.
    pub(crate) fn release(&mut self, name: &NamespacedName) {
        self.waiting.remove(name);
        self.begun.remove(name);
    }

    /// How many wait.
    pub(crate) fn waiting(&self, now: Instant) -> usize {
        self.waiting.values().filter(|asked| now.duration_since(**asked) < FORGOTTEN).count()
    }
}

/// The value of a slot of a queue with pods that were ready, and of one without.
const READY: &str = "ready";
const UNREADY: &str = "unready";

/// The value of the slot that this Deployment takes.
pub(crate) fn rollout_slot(before: Option<&Deployment>) -> &'static str {
    let status = before.and_then(|before| before.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
    if ready > 0 { READY } else { UNREADY }
}

/// Whether a Deployment has its slot still: it has begun one, and has pods of an older template.
pub(crate) fn is_under_way(deployment: &Deployment) -> bool {
    let Some(slot) = deployment.annotations().get(annotations::ROLLOUT_SLOT) else { return false };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if wanted == 0 || status.observed_generation < deployment.metadata.generation {
        return wanted > 0;
    }
    let mut conditions = status.conditions.iter().flatten();
    let hopeless = conditions.any(|one| one.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let updated = status.updated_replicas.unwrap_or_default();
    // Fewer than wanted, and all of them new: a quota lets no more in.
    let old = updated < status.replicas.unwrap_or_default() || updated == 0;
    old && !(slot == UNREADY && hopeless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named(name: &str) -> NamespacedName {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn so_many_at_once_and_the_others_in_the_order_of_their_names() {
        let (mut rollouts, now) = (Rollouts::new(2), Instant::now());
        let mut in_progress = BTreeSet::new();
        let mut take = |name: &str, in_progress: &BTreeSet<NamespacedName>, at: u64| {
            rollouts.take(&named(name), in_progress, now + Duration::from_secs(at))
        };
        // Nobody is seen to wait yet, so the first who asks begins.
        assert!(take("c", &in_progress, 0));
        assert!(take("b", &in_progress, 0));
        // They are counted before a watch shows them, and once when it does.
        assert!(!take("e", &in_progress, 1));
        in_progress.extend([named("c"), named("b")]);
        assert!(!take("d", &in_progress, 2));
        in_progress.remove(&named("b"));
        assert!(!take("e", &in_progress, 10), "d waits, and is before it");
        assert!(take("d", &in_progress, 10));
        in_progress.clear();
        assert!(take("e", &in_progress, 20));
    }

    #[test]
    fn a_release_over_one_that_does_not_start_takes_over_its_slots() {
        let (mut rollouts, now) = (Rollouts::new(2), Instant::now());
        let stuck = BTreeSet::from([named("b"), named("d")]);
        assert!(!rollouts.take(&named("a"), &stuck, now), "both slots are taken");
        assert!(rollouts.take(&named("b"), &stuck, now));
        assert!(rollouts.take(&named("d"), &stuck, now));
        assert!(!rollouts.take(&named("c"), &stuck, now));
    }

    #[test]
    fn a_slot_that_was_not_used_is_another_ones() {
        let (mut rollouts, now, nobody) = (Rollouts::new(1), Instant::now(), BTreeSet::new());
        assert!(rollouts.take(&named("a"), &nobody, now));
        assert!(!rollouts.take(&named("b"), &nobody, now));
        rollouts.release(&named("a"));
        assert!(rollouts.take(&named("b"), &nobody, now));
    }

    #[test]
    fn who_asks_no_more_keeps_nobody_waiting() {
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
        let check = |slot: &str, replicas: i32, status: serde_json::Value, expected: bool| {
            let annotations =
                if slot.is_empty() { json!({}) } else { json!({ annotations::ROLLOUT_SLOT: slot }) };
            let metadata = json!({ "annotations": annotations, "generation": 3 });
            let template = json!({ "metadata": {}, "spec": { "containers": [] } });
            let spec = json!({ "replicas": replicas, "selector": {}, "template": template });
            let deployment =
                serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status }));
            assert_eq!(is_under_way(&deployment.unwrap()), expected, "{slot} {replicas} {status}");
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
        // A release that does not start keeps its slot, unless nothing had started before it either.
        let mut stuck = begun;
        stuck["conditions"] =
            json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
        check(READY, 4, stuck.clone(), true);
        check(UNREADY, 4, stuck.clone(), false);
        stuck["observedGeneration"] = 2.into();
        check(UNREADY, 4, stuck, true);
    }
}
