use rowlock_crds::{ConditionReason, ConditionType, TaskQueueSpec};

use super::*;
use crate::kubernetes::deployment::outcome::Outcome;
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
        deployment: None,
        health: &health,
        is_waking_up: false,
        unready_for: None,
        worker: &k8s_openapi::api::core::v1::ResourceRequirements::default(),
    };
    status(&inputs, &[new_condition], Some(3), last, None, now.parse().unwrap())
}

#[test]
fn counts_keep_two_digits() {
    for (count, expected) in [(0, 0), (99, 99), (100, 100), (109, 100), (1999, 1900), (1_234_567, 1_200_000)]
    {
        assert_eq!(rounded(count), expected);
    }
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
        assert_eq!([None, soon, later].map(|since| change.is_due(since, EVERY)), due);
    };
    check(&last.clone(), Change::None, [false; 3]);
    check(&TaskQueueStatus { pods: Some(2), ..last.clone() }, Change::Numbers, [true, false, true]);
    check(
        &made(new_condition(true, "b"), &last, "2026-01-01T00:00:00Z"),
        Change::Numbers,
        [true, false, true],
    );
    check(&made(new_condition(false, "a"), &last, "2026-01-01T00:00:00Z"), Change::Conditions, [true; 3]);
}

#[test]
fn another_database_is_noted_with_the_one_before_and_for_a_day() {
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
    // What is not known is as it was.
    assert_eq!(database(Some(&other), None, at("2026-01-02T00:00:00Z")), Some(other));
}
