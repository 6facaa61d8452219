//! The connections of a database limit the pods of all its queues together.

use proptest::prelude::*;
use rowlock_plan::{Connections, Decision, Memory, ObservedQueue, Reason, decide, share};

use crate::{queue, seconds};

/// Queues that hold so many pods and ask for so many, ten workers each.
fn queues(held_and_asked: &[(u32, u32)]) -> (Vec<ObservedQueue>, Vec<Decision>) {
    let of = |(held, asked): &(u32, u32)| {
        let queue = ObservedQueue {
            pods: *held,
            total: asked * 10,
            scaling: rowlock_plan::Scaling::Fixed,
            ..queue()
        };
        let decision = decide(&queue, Memory::default(), seconds(1));
        assert_eq!(decision.pods_desired, *asked);
        (queue, decision)
    };
    held_and_asked.iter().map(of).unzip()
}

/// With so many connections, of which 5 are kept back, and so many pods that leave.
fn check(connections: u32, leaving: u32, held_and_asked: &[(u32, u32)], expected: &[u32]) {
    let (observed, mut decisions) = queues(held_and_asked);
    let limit = Connections { limit: connections + 5, others: 0, leaving };
    share(&limit, &observed, &mut decisions);
    let pods: Vec<u32> = decisions.iter().map(|one| one.pods_desired).collect();
    assert_eq!(pods, expected, "{connections} connections, {leaving} leaving, {held_and_asked:?}");
    for (decision, (_, asked)) in decisions.iter().zip(held_and_asked) {
        let limited = decision.pods_desired < *asked;
        assert_eq!(decision.reason, if limited { Reason::Connections } else { Reason::Fixed });
        assert_eq!(decision.workers_desired, decision.pods_desired * 10);
    }
}

#[test]
fn a_pod_takes_two_connections_and_some_are_left_to_others() {
    check(40, 0, &[(0, 30)], &[20]);
    check(41, 0, &[(0, 30)], &[20]);
    check(40, 0, &[(0, 20)], &[20]);
    let limit = Connections { limit: 500, others: 100, leaving: 0 };
    assert_eq!((limit.reserve(), limit.pods()), (50, 175));
}

#[test]
fn who_asks_for_little_gets_it_and_the_others_share_the_rest() {
    check(20, 0, &[(0, 2), (0, 20), (0, 20)], &[2, 4, 4]);
    check(20, 0, &[(0, 20), (0, 20), (0, 20)], &[4, 3, 3]);
    // What is over stays with who has it.
    check(20, 0, &[(3, 20), (3, 20), (4, 20)], &[3, 3, 4]);
    // Not even one for each: those who have one keep it.
    check(4, 0, &[(0, 1), (1, 1), (0, 1), (1, 1)], &[0, 1, 0, 1]);
}

#[test]
fn pods_that_leave_are_counted_and_end_no_others() {
    // The first gives ten back; the second gets none before they are gone.
    check(40, 0, &[(20, 20), (0, 20)], &[10, 0]);
    check(40, 10, &[(10, 20), (0, 20)], &[10, 0]);
    check(40, 4, &[(10, 20), (0, 20)], &[10, 6]);
    check(40, 0, &[(10, 20), (6, 20)], &[10, 10]);
    check(40, 30, &[(10, 20), (10, 20)], &[10, 10]);
}

#[test]
fn one_pod_is_let_through_where_others_hold_everything() {
    let (observed, mut decisions) = queues(&[(0, 5), (0, 5)]);
    share(&Connections { limit: 100, others: 300, leaving: 0 }, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [1, 0]);
}

#[test]
fn who_is_suspended_keeps_what_it_has() {
    let suspended = ObservedQueue { suspend_scaling: true, pods: 8, ..queue() };
    let first = decide(&suspended, Memory::default(), seconds(1));
    let (mut observed, mut decisions) = queues(&[(0, 20)]);
    observed.push(suspended);
    decisions.push(first);
    share(&Connections { limit: 25, others: 0, leaving: 0 }, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [2, 8]);
    assert_eq!(decisions[1].reason, Reason::Suspended);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_more_pods_than_connections_allow(
        pods in prop::collection::vec((0_u32..30, 0_u32..30), 1..8), limit in 0_u32..200, others in 0_u32..100, leaving in 0_u32..20
    ) {
        let (observed, mut decisions) = queues(&pods);
        let connections = Connections { limit, others, leaving };
        share(&connections, &observed, &mut decisions);
        let sum: u32 = decisions.iter().map(|one| one.pods_desired).sum();
        let held: u32 = pods.iter().map(|(held, _)| held).sum();
        let (most, asked): (u32, u32) = (connections.pods(), pods.iter().map(|(_, asked)| asked).sum());
        prop_assert!(sum <= most);
        let grown: u32 = decisions.iter().zip(&pods).map(|(one, (held, _))| one.pods_desired.saturating_sub(*held)).sum();
        prop_assert!(grown == 0 || held + leaving + grown <= most);
        if asked <= most && asked + held + leaving <= most {
            prop_assert!(decisions.iter().zip(&pods).all(|(one, (_, asked))| one.pods_desired == *asked));
        }
    }

    #[test]
    fn shares_settle_and_then_stay(pods in prop::collection::vec((0_u32..30, 0_u32..30), 1..8), limit in 5_u32..200) {
        let mut held = pods.clone();
        let connections = Connections { limit, others: 0, leaving: 0 };
        let mut last = Vec::new();
        // What leaves has left by the next look.
        for _ in 0..4 {
            let (observed, mut decisions) = queues(&held);
            share(&connections, &observed, &mut decisions);
            let now: Vec<u32> = decisions.iter().map(|one| one.pods_desired).collect();
            for (pods, now) in held.iter_mut().zip(&now) {
                pods.0 = *now;
            }
            last.push(now);
        }
        prop_assert_eq!(&last[2], &last[3]);
        let (sum, asked): (u32, u32) = (last[3].iter().sum(), pods.iter().map(|(_, asked)| asked).sum());
        prop_assert_eq!(sum, asked.min(connections.pods()));
    }
}
