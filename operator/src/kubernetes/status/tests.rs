//! When conditions change, and when the status is written.

use rowlock_crds::{ConditionReason, ConditionType, TaskQueueSpec};

use super::*;
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::pods::health::PodHealth;

const EVERY: Duration = Duration::from_secs(20);

fn new_condition(holds: bool, message: &str) -> NewCondition {
    NewCondition {
        type_: ConditionType::Ready,
        holds: Some(holds),
        reason: ConditionReason::Succeeded,
        message: message.into(),
    }
}

fn made(new_condition: NewCondition, last: &TaskQueueStatus, now: &str) -> TaskQueueStatus {
    let spec = TaskQueueSpec::with_workers(1);
    let health = PodHealth::default();
    let inputs = StatusInputs {
        place: ("shop", "emails"),
        former: None,
        spec: &spec,
        problem: None,
        view: None,
        outcome: &Outcome::NotTried,
        foreign_scaling: None,
        canary: None,
        now: Timestamp::now(),
        deployment: None,
        health: &health,
        is_waking_up: false,
        unready_for: None,
        unjoined_for: None,
        worker: &k8s_openapi::api::core::v1::ResourceRequirements::default(),
    };
    status(&inputs, &[new_condition], Some(3), last, None, now.parse().unwrap())
}

#[test]
fn a_condition_keeps_its_time_while_its_status_is_the_same() {
    let first = made(new_condition(true, "a"), &TaskQueueStatus::default(), "2026-01-01T00:00:00.5Z");
    let same = made(new_condition(true, "b"), &first, "2026-01-01T01:00:00Z");
    let other = made(new_condition(false, "b"), &same, "2026-01-01T02:00:00Z");
    let time = |status: &TaskQueueStatus| status.conditions[0].last_transition_time.0.to_string();
    assert_eq!(time(&first), "2026-01-01T00:00:00Z");
    assert_eq!((time(&same), time(&other)), (time(&first), "2026-01-01T02:00:00Z".to_owned()));
}

#[test]
fn changed_conditions_are_written_at_once_and_numbers_after_a_while() {
    let last = made(new_condition(true, "a"), &TaskQueueStatus::default(), "2026-01-01T00:00:00Z");
    let soon = Some(Duration::from_secs(1));
    let check = |next: &TaskQueueStatus, expected: Change, due: [bool; 3]| {
        let change = change(&last, next);
        assert_eq!(change, expected);
        let later = Some(EVERY);
        assert_eq!([None, soon, later].map(|since| change.is_due(since, EVERY, true)), due);
        let without = [None, soon, later].map(|since| change.is_due(since, EVERY, false));
        assert_eq!(without, if change.costs_budget() { [false; 3] } else { due });
    };
    check(&last.clone(), Change::None, [false; 3]);
    check(&TaskQueueStatus { pods: Some(2), ..last.clone() }, Change::Numbers, [true, false, true]);
    check(
        &made(new_condition(true, "b"), &last, "2026-01-01T00:00:00Z"),
        Change::Messages,
        [true, false, true],
    );
    let both = made(new_condition(true, "b"), &last, "2026-01-01T00:00:00Z");
    check(&TaskQueueStatus { pods: Some(2), ..both }, Change::Numbers, [true, false, true]);
    check(&made(new_condition(false, "a"), &last, "2026-01-01T00:00:00Z"), Change::Conditions, [true; 3]);
}

/// Before the fix, a database whose name never resolves had a condition and no event.
#[test]
fn a_database_that_is_unreachable_for_a_minute_has_an_event() {
    let condition = |type_: ConditionType, holds| NewCondition { type_, ..new_condition(holds, "a") };
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let made = |type_, holds| {
        made(condition(type_, holds), &TaskQueueStatus::default(), "2026-01-01T00:00:00Z").conditions
    };
    let conditions = made(ConditionType::DatabaseReachable, false);
    let mut status = TaskQueueStatus { conditions, ..TaskQueueStatus::default() };
    assert!(long_unreachable(&status, at("2026-01-01T00:00:59Z")).is_none());
    assert!(long_unreachable(&status, at("2026-01-01T00:01:00Z")).is_some());
    status.conditions.extend(made(ConditionType::Stalled, true));
    assert!(long_unreachable(&status, at("2026-01-01T00:01:00Z")).is_none(), "that has an event already");
    status.conditions = made(ConditionType::DatabaseReachable, true);
    assert!(long_unreachable(&status, at("2026-01-01T00:01:00Z")).is_none());
}

/// Before the fix, each new leader wrote that it knows nothing, so `Ready` was unknown for a moment.
#[test]
fn a_new_leader_keeps_known_conditions_until_it_has_looked() {
    let known = made(new_condition(true, "a"), &TaskQueueStatus::default(), "2026-01-01T00:00:00Z");
    let at = Duration::from_secs;
    assert!(stays(&known, Some(3), at(0)) && stays(&known, Some(3), at(29)));
    assert!(!stays(&known, Some(3), at(30)), "it cannot look");
    assert!(!stays(&known, Some(4), at(0)), "the spec has changed");
    assert!(!stays(&TaskQueueStatus::default(), None, at(0)), "there is no status yet");
}

#[test]
fn a_changed_database_is_reported_for_a_day_with_the_previous_one() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let first = database(None, Some("shop@1"), at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!((first.identity.as_str(), &first.before), ("shop@1", &None));
    let same = database(Some(&first), Some("shop@1"), at("2026-01-01T01:00:00Z"));
    assert_eq!(same.as_ref(), Some(&first));
    assert_eq!(former(same.as_ref(), at("2026-01-01T01:00:00Z")), None);
    let other = database(Some(&first), Some("shop@2"), at("2026-01-02T00:00:00.5Z")).unwrap();
    assert_eq!((other.identity.as_str(), other.before.as_deref()), ("shop@2", Some("shop@1")));
    assert_eq!(former(Some(&other), at("2026-01-02T23:00:00Z")), Some(&other));
    assert_eq!(former(Some(&other), at("2026-01-03T00:00:01Z")), None);
    // While the identity is unknown, the status keeps the last one.
    assert_eq!(database(Some(&other), None, at("2026-01-02T00:00:00Z")), Some(other));
}

/// Before the fix, a queue without a ready pod was not stalled for ten minutes after each failover.
#[test]
fn a_new_leader_knows_that_the_pods_do_not_get_ready() {
    let of = |reason| {
        let stalled = NewCondition { type_: ConditionType::Stalled, reason, ..new_condition(true, "a") };
        made(stalled, &TaskQueueStatus::default(), "2026-01-01T00:00:00Z")
    };
    assert!(pods_never_ready(&of(ConditionReason::NotStarting), Some(3)));
    assert!(!pods_never_ready(&of(ConditionReason::NotStarting), Some(4)), "the spec has changed");
    assert!(!pods_never_ready(&of(ConditionReason::SecretNotFound), Some(3)), "another problem");
}
