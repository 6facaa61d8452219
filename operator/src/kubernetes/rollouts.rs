//! Whose pods are changed when the operator itself brings other ones, such as a new worker: a few queues at a time.
//!
//! Who is under way is read from the Deployments, so it is known to whoever leads next; who may begin is settled by the order of names.
//! A release that does not start keeps its turns: the others go on with what they have. But a queue none of whose pods was ready
//! before proves nothing, and gives its turn up when Kubernetes has given up hope.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use rowlock_crds::annotations;

/// The namespace and name of a Deployment.
pub(crate) type Place = (String, String);

/// For so long after it began, a watch may not show that it did.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// Who has not asked again for so long does not wait any more; loops ask every few seconds.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The turns of all queues that this operator tends.
#[derive(Debug)]
pub(crate) struct Rollouts {
    at_once: usize,
    waiting: BTreeMap<Place, Instant>,
    begun: BTreeMap<Place, Instant>,
}

impl Rollouts {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, waiting: BTreeMap::new(), begun: BTreeMap::new() }
    }

    /// Whether the pods of this one may be changed now, with so many under way.
    pub(crate) fn ask(&mut self, place: &Place, under_way: &BTreeSet<Place>, now: Instant) -> bool {
        self.waiting.insert(place.clone(), now);
        self.waiting.retain(|_, asked| now.duration_since(*asked) < FORGOTTEN);
        self.begun.retain(|_, begun| now.duration_since(*begun) < WATCH_DELAY);
        let unseen = self.begun.keys().filter(|begun| !under_way.contains(*begun));
        let others = under_way.iter().chain(unseen).filter(|one| *one != place).count();
        // Who has a turn and asks has pods of a release that was replaced: it waits for nobody, nor for itself.
        let before = if under_way.contains(place) {
            0
        } else {
            self.waiting.range(..place.clone()).filter(|(one, _)| !under_way.contains(*one)).count()
        };
        let may = others + before < self.at_once;
        if may {
            self.waiting.remove(place);
            self.begun.insert(place.clone(), now);
        }
        may
    }

    /// Takes a turn back that was not used.
    pub(crate) fn withdraw(&mut self, place: &Place) {
        self.waiting.remove(place);
        self.begun.remove(place);
    }

    /// How many wait.
    pub(crate) fn waiting(&self, now: Instant) -> usize {
        self.waiting.values().filter(|asked| now.duration_since(**asked) < FORGOTTEN).count()
    }
}

/// What a turn is called of a queue with pods that were ready, and of one without.
const READY: &str = "ready";
const UNREADY: &str = "unready";

/// The word for a turn that this Deployment takes.
pub(crate) fn turn(before: Option<&Deployment>) -> &'static str {
    let status = before.and_then(|before| before.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
    if ready > 0 { READY } else { UNREADY }
}

/// Whether a Deployment has a turn still: it has begun one, and has pods of an older template.
pub(crate) fn is_under_way(deployment: &Deployment) -> bool {
    let Some(turn) = deployment.annotations().get(annotations::TURN) else { return false };
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
    old && !(turn == UNREADY && hopeless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(name: &str) -> Place {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn so_many_at_once_and_the_others_in_the_order_of_their_names() {
        let (mut rollouts, now) = (Rollouts::new(2), Instant::now());
        let mut under_way = BTreeSet::new();
        let mut ask = |name: &str, under_way: &BTreeSet<Place>, at: u64| {
            rollouts.ask(&place(name), under_way, now + Duration::from_secs(at))
        };
        // Nobody is seen to wait yet, so the first who asks begins.
        assert!(ask("c", &under_way, 0));
        assert!(ask("b", &under_way, 0));
        // They are counted before a watch shows them, and once when it does.
        assert!(!ask("e", &under_way, 1));
        under_way.extend([place("c"), place("b")]);
        assert!(!ask("d", &under_way, 2));
        under_way.remove(&place("b"));
        assert!(!ask("e", &under_way, 10), "d waits, and is before it");
        assert!(ask("d", &under_way, 10));
        under_way.clear();
        assert!(ask("e", &under_way, 20));
    }

    #[test]
    fn a_release_over_one_that_does_not_start_takes_over_its_turns() {
        let (mut rollouts, now) = (Rollouts::new(2), Instant::now());
        let stuck = BTreeSet::from([place("b"), place("d")]);
        assert!(!rollouts.ask(&place("a"), &stuck, now), "both turns are taken");
        assert!(rollouts.ask(&place("b"), &stuck, now));
        assert!(rollouts.ask(&place("d"), &stuck, now));
        assert!(!rollouts.ask(&place("c"), &stuck, now));
    }

    #[test]
    fn a_turn_that_was_not_used_is_another_ones() {
        let (mut rollouts, now, nobody) = (Rollouts::new(1), Instant::now(), BTreeSet::new());
        assert!(rollouts.ask(&place("a"), &nobody, now));
        assert!(!rollouts.ask(&place("b"), &nobody, now));
        rollouts.withdraw(&place("a"));
        assert!(rollouts.ask(&place("b"), &nobody, now));
    }

    #[test]
    fn who_asks_no_more_keeps_nobody_waiting() {
        let (mut rollouts, now) = (Rollouts::new(1), Instant::now());
        let under_way = BTreeSet::from([place("x")]);
        assert!(!rollouts.ask(&place("a"), &under_way, now));
        assert!(!rollouts.ask(&place("b"), &BTreeSet::new(), now));
        assert_eq!(rollouts.waiting(now), 2);
        assert!(rollouts.ask(&place("b"), &BTreeSet::new(), now + FORGOTTEN));
        assert_eq!(rollouts.waiting(now + FORGOTTEN), 0);
    }

    #[test]
    fn a_turn_lasts_until_no_pod_is_old() {
        let check = |turn: &str, replicas: i32, status: serde_json::Value, expected: bool| {
            let annotations = if turn.is_empty() { json!({}) } else { json!({ annotations::TURN: turn }) };
            let metadata = json!({ "annotations": annotations, "generation": 3 });
            let template = json!({ "metadata": {}, "spec": { "containers": [] } });
            let spec = json!({ "replicas": replicas, "selector": {}, "template": template });
            let deployment =
                serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status }));
            assert_eq!(is_under_way(&deployment.unwrap()), expected, "{turn} {replicas} {status}");
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
        // A release that does not start keeps its turn, unless nothing had started before it either.
        let mut stuck = begun;
        stuck["conditions"] =
            json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
        check(READY, 4, stuck.clone(), true);
        check(UNREADY, 4, stuck.clone(), false);
        stuck["observedGeneration"] = 2.into();
        check(UNREADY, 4, stuck, true);
    }
}
