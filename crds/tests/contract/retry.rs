//! Properties of retry delays.

use std::time::Duration;

use proptest::prelude::*;
use rowlock_crds::{Backoff, Dur, MAX_RETRY_DELAY, Policy, RetryPolicy, TaskQueueSpec};

fn any_dur() -> impl Strategy<Value = Dur> {
    any::<Duration>().prop_map(Dur)
}

fn any_backoff() -> impl Strategy<Value = Backoff> {
    prop_oneof![
        prop::collection::vec(any_dur(), 0..8).prop_map(|mut delays| {
            delays.sort();
            Backoff::Delays(delays)
        }),
        (any_dur(), any::<u32>(), any_dur()).prop_map(|(initial, factor, max)| Backoff::Exponential {
            initial,
            factor,
            max
        }),
        any_dur().prop_map(Backoff::Fixed),
    ]
}

fn any_policy() -> impl Strategy<Value = RetryPolicy> {
    (any::<u16>(), any_backoff(), any::<u8>(), prop::collection::vec(any::<u16>(), 0..5)).prop_map(
        |(max_attempts, backoff, jitter_percent, final_statuses)| RetryPolicy {
            max_attempts,
            backoff,
            jitter_percent,
            final_statuses,
            max_snoozes: None,
        },
    )
}

proptest! {
    #[test]
    fn a_delay_is_bounded_for_any_input(policy in any_policy(), failed: u16, jitter: f64) {
        prop_assert!(policy.delay(failed, jitter) <= MAX_RETRY_DELAY);
    }

    #[test]
    fn a_later_attempt_never_waits_less(policy in any_policy(), failed in 0..u16::MAX, jitter in 0.0..1.0) {
        prop_assert!(policy.delay(failed, jitter) <= policy.delay(failed + 1, jitter));
    }

    #[test]
    fn more_jitter_never_waits_less(policy in any_policy(), failed: u16, a in 0.0..1.0, b in 0.0..1.0) {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        prop_assert!(policy.delay(failed, low) <= policy.delay(failed, high));
    }

    #[test]
    fn jitter_stays_within_its_percentage(failed: u16, jitter in 0.0..1.0, percent in 0_u8..=100) {
        let policy = RetryPolicy { jitter_percent: percent, ..RetryPolicy::default() };
        let exact = policy.delay(failed, 0.5).as_secs_f64();
        let spread = exact * f64::from(percent) / 100.0 + 1e-6;
        prop_assert!((policy.delay(failed, jitter).as_secs_f64() - exact).abs() <= spread);
    }
}

#[test]
fn exponential_delays_reach_their_maximum_and_stay() {
    let backoff = |initial, factor, max| Backoff::Exponential { initial, factor, max };
    let seconds = Dur::from_secs;
    let check = |backoff: &Backoff, failed, expected: Dur| {
        assert_eq!(backoff.delay(failed), expected.0, "{backoff:?} after {failed}");
    };
    check(&backoff(seconds(1), 2, seconds(3600)), 0, seconds(1));
    check(&backoff(seconds(1), 2, seconds(3600)), 12, seconds(2048));
    check(&backoff(seconds(1), 2, seconds(3600)), 13, seconds(3600));
    check(&backoff(seconds(1), 2, seconds(3600)), u16::MAX, seconds(3600));
    check(&backoff(seconds(0), 100, seconds(3600)), u16::MAX, seconds(0));
    check(&backoff(seconds(5), 1, seconds(3600)), 1000, seconds(5));
    check(&backoff("1ms".parse().unwrap(), 2, "3650d".parse().unwrap()), 34, "8589934592ms".parse().unwrap());
}

#[test]
fn jitter_beyond_its_range_is_clamped_and_nan_is_ignored() {
    let policy = RetryPolicy::default();
    assert_eq!(policy.delay(2, f64::NAN), Duration::from_secs(30));
    assert_eq!(policy.delay(2, f64::INFINITY), Duration::from_secs(33));
}

#[test]
fn the_policy_survives_the_database() {
    let check = |backoff: Backoff, json: &str| {
        let retry = RetryPolicy { backoff, ..RetryPolicy::default() };
        let policy = Policy { retry, timeout: Dur::from_secs(90), ..Policy::default() };
        let text = serde_json::to_string(&policy).unwrap();
        let expected = format!(
            "{{\"retry\":{{\"maxAttempts\":6,\"backoff\":{json},\"jitterPercent\":10,\
             \"final\":[400,404,410,422]}},\"timeout\":\"1m30s\",\"waitTarget\":\"1m\"}}"
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        // Also as YAML, where a plain serde enum would need tags.
        assert_eq!(serde_yaml::from_str::<Policy>(&serde_yaml::to_string(&policy).unwrap()).unwrap(), policy);
    };
    check(Backoff::Delays(vec![Dur::from_secs(15)]), r#"{"delays":["15s"]}"#);
    check(Backoff::Fixed(Dur::from_secs(10)), r#"{"fixed":"10s"}"#);
    check(
        Backoff::Exponential { initial: Dur::from_secs(1), factor: 2, max: Dur::from_secs(3600) },
        r#"{"exponential":{"initial":"1s","factor":2,"max":"1h"}}"#,
    );
}

#[test]
fn a_newer_policy_is_read_by_an_older_instance() {
    let policy: Policy = serde_json::from_str(r#"{"timeout":"1m","somethingNew":true}"#).unwrap();
    assert_eq!(policy, Policy::default());
    assert_eq!(TaskQueueSpec::with_workers(1).policy(), Policy::default());
}

#[test]
fn only_listed_answers_are_final() {
    let policy = RetryPolicy::default();
    assert!(policy.is_final(404));
    assert!(!policy.is_final(500));
}
