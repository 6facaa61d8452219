use serde_json::{Value, json};

use super::*;

fn pod(name: &str, but: &Value) -> Arc<Pod> {
    let hash = but["hash"].as_str().unwrap_or("7d9f");
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("emails-{hash}"),
        "uid": "r1", "controller": true });
    let ready = json!({ "type": "Ready", "status": but["ready"].as_str().unwrap_or("True") });
    let phase = but["phase"].as_str().unwrap_or("Running");
    let mut pod = json!({
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "ownerReferences": [owner],
            "labels": { "rowlock.dev/task-queue": "emails", "pod-template-hash": hash },
        },
        "spec": { "containers": [], "nodeName": but["node"] },
        "status": { "phase": phase, "conditions": [ready] },
    });
    if but["cost"].is_string() {
        pod["metadata"]["annotations"] = json!({ DELETION_COST: but["cost"] });
    }
    if but["deleted"] == true {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Ready pods with these names and costs.
fn ready(pods: &[(&str, Option<&str>)]) -> Vec<Candidate> {
    let pods: Vec<_> = pods.iter().map(|(name, cost)| pod(name, &json!({ "cost": cost }))).collect();
    candidates(&pods, "emails")
}

fn uids(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("uid-{name}")).collect()
}

#[test]
fn only_the_replicas_of_the_deployment_can_be_chosen() {
    let theirs = {
        let mut pod = Pod::clone(&pod("labelled", &json!({})));
        pod.metadata.owner_references = None;
        Arc::new(pod)
    };
    let all = [
        pod("a", &json!({})),
        pod("terminating", &json!({ "deleted": true })),
        pod("ended", &json!({ "phase": "Failed" })),
        theirs,
    ];
    let names =
        |deployment: &str| candidates(&all, deployment).into_iter().map(|pod| pod.name).collect::<Vec<_>>();
    assert_eq!(names("emails"), ["a"]);
    assert_eq!(names("another"), [""; 0]);
}

/// As `ActivePodsWithRanks` of Kubernetes sorts them.
#[test]
fn pods_that_kubernetes_ends_first_anyway_are_chosen_first() {
    let table = [
        (json!({ "ready": "False", "phase": "Pending" }), 0),
        (json!({ "ready": "False", "phase": "Pending", "node": "n1" }), 1),
        (json!({ "ready": "False", "node": "n1" }), 2),
        (json!({ "node": "n1" }), 3),
        // The watch drops the spec of ready pods.
        (json!({}), 3),
    ];
    for (but, rank) in table {
        assert_eq!(candidates(&[pod("a", &but)], "emails")[0].rank, rank, "{but}");
    }
}

#[test]
fn a_rollout_is_seen_by_the_status_or_by_the_pods() {
    let deployment = |status: &Value| -> Deployment {
        serde_json::from_value(json!({ "metadata": { "generation": 3 }, "status": status })).unwrap()
    };
    let table = [
        (json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 4 }), false),
        (json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 1 }), true),
        (json!({ "observedGeneration": 3, "replicas": 4 }), true),
        // It is about an older number of pods.
        (json!({ "observedGeneration": 2, "replicas": 4, "updatedReplicas": 1 }), false),
        (json!({}), false),
    ];
    for (status, expected) in table {
        assert_eq!(is_rolling_out(Some(&deployment(&status)), &[]), expected, "{status}");
    }
    let two = candidates(&[pod("a", &json!({})), pod("b", &json!({ "hash": "5c4b" }))], "emails");
    assert!(is_rolling_out(None, &two) && !is_rolling_out(None, &two[..1]));
}

#[test]
fn pods_are_chosen_only_for_a_scale_in_that_leaves_some() {
    let change = |current, wanted, pods, is_rolling_out| Change { current, wanted, pods, is_rolling_out };
    let table = [
        ("more pods", change(3, 5, 3, false), Step::Write),
        ("the same number", change(3, 3, 3, false), Step::Write),
        ("to zero", change(3, 0, 3, false), Step::Write),
        ("fewer pods", change(5, 3, 5, false), Step::Choose(2)),
        ("pods of the last scale-in are still there", change(5, 3, 6, false), Step::Choose(3)),
        ("some pods are not created yet", change(5, 3, 4, false), Step::Choose(1)),
        ("no pod has to go", change(5, 3, 2, false), Step::Write),
        ("fewer pods in a rollout", change(5, 3, 6, true), Step::AwaitRollout),
        ("to zero in a rollout", change(5, 0, 6, true), Step::Write),
    ];
    for (case, change, expected) in table {
        assert_eq!(ScaleIn::default().next(change, Instant::now()), expected, "{case}");
    }
}

#[test]
fn a_scale_in_waits_for_a_rollout_but_not_for_long() {
    let (mut scale_in, now) = (ScaleIn::default(), Instant::now());
    let rolls = Change { current: 5, wanted: 3, pods: 6, is_rolling_out: true };
    assert_eq!(scale_in.next(rolls, now), Step::AwaitRollout);
    assert!(scale_in.is_waiting());
    assert_eq!(scale_in.next(rolls, now + LONGEST_ROLLOUT / 2), Step::AwaitRollout);
    assert_eq!(scale_in.next(rolls, now + LONGEST_ROLLOUT), Step::Write);
    let over = Change { is_rolling_out: false, ..rolls };
    assert_eq!(scale_in.next(over, now), Step::Choose(3));
    // The next rollout has as much time.
    assert_eq!(scale_in.next(rolls, now + LONGEST_ROLLOUT), Step::AwaitRollout);
}

#[test]
fn the_number_is_lowered_when_the_chosen_pods_are_idle_and_cheap_or_after_a_while() {
    let low = Some(LOWEST_COST);
    let (seen, unseen) = (ready(&[("a", low), ("b", None)]), ready(&[("a", None), ("b", None)]));
    let before = ready(&[("a", low), ("b", low)]);
    let chosen = uids(&["a"]);
    for (pods, held, after, expected) in [
        (&seen, 0, Duration::ZERO, true),
        (&seen, 1, Duration::ZERO, false),
        (&unseen, 0, Duration::ZERO, false),
        // It was chosen before, and may run tasks again.
        (&before, 0, Duration::ZERO, false),
        (&before, 0, LONGEST_DRAIN, true),
        (&seen, 1, LONGEST_DRAIN, true),
        (&unseen, 0, LONGEST_DRAIN, true),
    ] {
        let (mut scale_in, now) = (ScaleIn::default(), Instant::now());
        scale_in.may_lower(&unseen, &chosen, 1, now);
        assert_eq!(scale_in.may_lower(pods, &chosen, held, now + after), expected, "{held} {after:?}");
    }
}

#[test]
fn without_a_choice_the_number_is_lowered_at_once_or_after_an_outage() {
    let (mut scale_in, now) = (ScaleIn::default(), Instant::now());
    assert!(!scale_in.gives_up(true, now));
    assert!(scale_in.gives_up(true, now + LONGEST_DRAIN));
    assert!(ScaleIn::default().gives_up(false, now));
}

#[test]
fn each_pod_gets_back_the_cost_that_it_had() {
    let mut scale_in = ScaleIn::default();
    let before = ready(&[("a", Some("7")), ("b", None), ("c", None), ("left-over", Some(LOWEST_COST))]);
    let changes = |scale_in: &ScaleIn, pods: &[Candidate], chosen: &[&str]| {
        let changes = scale_in.cost_changes(pods, &uids(chosen));
        changes.into_iter().map(|(pod, cost)| (pod.name.clone(), cost)).collect::<Vec<_>>()
    };
    let (low, cost) = (Some(LOWEST_COST.to_owned()), |name: &str, cost| (name.to_owned(), cost));
    let first = changes(&scale_in, &before, &["a", "b"]);
    assert_eq!(first, [cost("a", low.clone()), cost("b", low.clone()), cost("left-over", None)]);
    for pod in &before[..2] {
        scale_in.note_cost(pod, Some(LOWEST_COST));
    }
    // The watch is behind: nothing is written twice.
    assert_eq!(changes(&scale_in, &before[..3], &["a", "b"]), []);
    let after = ready(&[("a", Some(LOWEST_COST)), ("b", Some(LOWEST_COST)), ("c", None)]);
    let other = changes(&scale_in, &after, &["b", "c"]);
    assert_eq!(other, [cost("a", Some("7".to_owned())), cost("c", low)]);
    scale_in.note_cost(&after[0], Some("7"));
    assert_eq!(changes(&scale_in, &ready(&[("a", Some("7"))]), &[]), []);
}

#[test]
fn the_pods_that_went_are_compared_with_the_chosen_ones() {
    let all = ready(&[("a", None), ("b", None), ("c", None), ("d", None)]);
    let now = Instant::now();
    let lowered = |chosen: &[&str]| {
        let mut scale_in = ScaleIn::default();
        scale_in.lower(&all, uids(chosen), 2, now);
        scale_in
    };
    let left = |names: &[&str]| ready(&names.iter().map(|name| (*name, None)).collect::<Vec<_>>());
    let gone = |chosen, others| Gone { chosen, others };
    let mut scale_in = lowered(&["a", "b"]);
    assert_eq!(scale_in.compare(&left(&["b", "c", "d"]), now), (gone(1, 0), false));
    assert!(scale_in.is_lowered());
    assert_eq!(scale_in.compare(&left(&["c", "d"]), now), (gone(1, 0), false));
    assert!(!scale_in.is_lowered());
    assert_eq!(scale_in.compare(&left(&["c"]), now), (gone(0, 0), false), "it is over");
    let mut scale_in = lowered(&["a", "b"]);
    assert_eq!(scale_in.compare(&left(&["a", "d"]), now), (gone(1, 1), true), "one chosen pod stays");
    let mut scale_in = lowered(&["a", "b"]);
    assert_eq!(scale_in.compare(&left(&[]), now), (gone(2, 0), false), "others went for other reasons");
    let mut scale_in = lowered(&["a", "b"]);
    assert_eq!(scale_in.compare(&all, now + COMPARED_FOR), (gone(0, 0), true), "nothing went");
}

#[test]
fn a_reversal_has_to_be_undone_until_the_pods_are_gone() {
    let (mut scale_in, now) = (ScaleIn::default(), Instant::now());
    let all = ready(&[("a", None), ("b", None), ("c", None)]);
    assert!(!scale_in.has_to_undo(3));
    scale_in.may_lower(&all, &uids(&["a"]), 1, now);
    assert!(scale_in.has_to_undo(3));
    scale_in.lower(&all, uids(&["a"]), 2, now);
    assert!(scale_in.has_to_undo(3) && !scale_in.has_to_undo(2));
    scale_in.compare(&all[1..], now);
    assert!(!scale_in.has_to_undo(3));
}
