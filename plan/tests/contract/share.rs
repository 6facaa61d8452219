//! The connections of a database limit the pods of all its queues together.

use proptest::prelude::*;
use rowlock_plan::{Backlog, Connections, Decision, Memory, ObservedQueue, PodTimes, Reason, decide, share};

use crate::{queue, seconds};

fn tasks(available: u64) -> Backlog {
    Backlog { available, ..Backlog::default() }
}

/// Queues that hold and ask for these numbers of pods, ten workers each, with tasks for all of them.
fn queues(held_and_asked: &[(u32, u32)]) -> (Vec<ObservedQueue>, Vec<Decision>) {
    let of = |(held, asked): &(u32, u32)| {
        let queue = ObservedQueue {
            pods: *held,
            ready: *held,
            total: asked * 10,
            scaling: rowlock_plan::Scaling::Fixed,
            stats: Some(tasks(u64::from(asked * 10))),
            ..queue()
        };
        let decision = decide(&queue, Memory::default(), seconds(1));
        assert_eq!(decision.pods_desired, *asked);
        (queue, decision)
    };
    held_and_asked.iter().map(of).unzip()
}

/// With this many connections, of which 5 are kept back, and this many pods that leave.
fn check(connections: u32, leaving: u32, held_and_asked: &[(u32, u32)], expected: &[u32]) {
    let (observed, mut decisions) = queues(held_and_asked);
    let limit = Connections { limit: connections + 5, others: 0, others_steady: 0, leaving };
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
    let limit = Connections { limit: 500, others: 100, others_steady: 100, leaving: 0 };
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

/// Before, pods that found no node kept their places from all other queues, as long as one was ready.
#[test]
fn pods_that_the_cluster_has_no_room_for_leave_their_places_to_others() {
    let shares = |pairs: &[(u32, u32)], room: Option<u32>| {
        let (mut observed, mut decisions) = queues(pairs);
        observed[0].room = room;
        let limit = Connections { limit: 45, others: 0, others_steady: 0, leaving: 0 };
        share(&limit, &observed, &mut decisions);
        decisions.iter().map(|one| one.pods_desired).collect::<Vec<_>>()
    };
    assert_eq!(shares(&[(16, 16), (4, 10)], None), [10, 4]);
    assert_eq!(shares(&[(16, 16), (4, 20)], Some(3)), [3, 4]);
    assert_eq!(shares(&[(3, 16), (4, 20)], Some(3)), [3, 17]);
    // What nobody else asks for, it may try.
    assert_eq!(shares(&[(16, 16), (4, 4)], Some(3)), [16, 4]);
    assert_eq!(shares(&[(16, 16), (4, 10)], Some(3)), [10, 4]);
    assert_eq!(shares(&[(3, 16), (4, 10)], Some(3)), [10, 10]);
    // One is always tried.
    assert_eq!(shares(&[(16, 16), (4, 20)], Some(0)), [1, 4]);
}

#[test]
fn pods_are_asked_for_again_ten_minutes_after_there_was_no_room_or_when_more_are_ready() {
    let mut times = PodTimes::default();
    let mut room = |second: u64, pods: u32, ready: u32, unplaced: u32| {
        let mut observed = ObservedQueue { pods, ready, unplaced, ..queue() };
        times.observe(&mut observed, seconds(0), seconds(second));
        observed.room
    };
    assert_eq!(room(0, 10, 3, 0), None);
    assert_eq!(room(10, 10, 3, 7), Some(3));
    assert_eq!(room(20, 10, 4, 6), Some(4));
    assert_eq!(room(30, 4, 4, 0), Some(4), "it has given them up");
    assert_eq!(room(619, 4, 4, 0), Some(4));
    assert_eq!(room(620, 4, 4, 0), None);
    assert_eq!(room(630, 10, 4, 6), Some(4));
    assert_eq!(room(640, 10, 5, 0), None, "there is room");
    assert_eq!(room(650, 10, 0, 12), Some(0));
}

#[test]
fn one_pod_is_let_through_where_others_hold_everything() {
    let (observed, mut decisions) = queues(&[(0, 5), (0, 5)]);
    share(
        &Connections { limit: 100, others: 300, others_steady: 300, leaving: 0 },
        &observed,
        &mut decisions,
    );
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [1, 0]);
}

#[test]
fn who_is_suspended_keeps_what_it_has() {
    let suspended = ObservedQueue { stalled: true, pods: 8, ..queue() };
    let first = decide(&suspended, Memory::default(), seconds(1));
    let (mut observed, mut decisions) = queues(&[(0, 20)]);
    observed.push(suspended);
    decisions.push(first);
    share(&Connections { limit: 25, others: 0, others_steady: 0, leaving: 0 }, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [2, 8]);
    assert_eq!(decisions[1].reason, Reason::Stalled);
}

/// This many places for these, each with what it holds, how long it has waited or held that, and whether its
/// pods are ready.
fn places(places: u32, queues: &[(u32, u64, bool)], expected: &[u32]) {
    let of = |&(pods, minutes, ready): &(u32, u64, bool)| {
        let time = |holds: bool| if holds { seconds(minutes * 60) } else { seconds(0) };
        let (held_for, unready_for, waited_for) = (time(pods > 0), time(pods > 0 && !ready), time(pods == 0));
        ObservedQueue {
            pods,
            held_for,
            unready_for,
            waited_for,
            stats: Some(tasks(1000)),
            scaling: rowlock_plan::Scaling::Fixed,
            ..queue()
        }
    };
    let observed: Vec<ObservedQueue> = queues.iter().map(of).collect();
    let mut decisions: Vec<Decision> =
        observed.iter().map(|queue| decide(queue, Memory::default(), seconds(1))).collect();
    let limit = Connections { limit: 2 * places + 5, others: 0, others_steady: 0, leaving: 0 };
    share(&limit, &observed, &mut decisions);
    let pods: Vec<u32> = decisions.iter().map(|one| one.pods_desired).collect();
    assert_eq!(pods, expected, "{places} places for {queues:?}");
}

/// Before this was fixed, the only place stayed with a queue whose pod never got ready, and the others
/// starved.
#[test]
fn a_queue_loses_its_place_if_no_pod_becomes_ready_and_after_its_turn() {
    // Who holds one keeps it for its turn.
    places(1, &[(1, 1, true), (0, 60, true)], &[1, 0]);
    places(1, &[(1, 2, false), (0, 60, true)], &[1, 0]);
    // It has not got ready: the other one's, as soon as it is free.
    places(1, &[(1, 3, false), (0, 60, true)], &[0, 0]);
    places(1, &[(0, 0, true), (0, 60, true)], &[0, 1]);
    places(1, &[(1, 10, true), (0, 1, true)], &[0, 0]);
    // Who has waited longest is the next; of two that have had their turn one goes.
    places(1, &[(0, 5, true), (0, 6, true), (0, 4, true)], &[0, 1, 0]);
    places(2, &[(1, 11, true), (1, 1, true), (0, 6, true)], &[0, 1, 0]);
    // Nobody waits: it may take as long as it likes.
    places(1, &[(1, 60, false)], &[1]);
    places(2, &[(1, 60, false), (0, 1, true)], &[1, 1]);
}

/// Before the fix, one waiting queue ended the turn of another one with each pass, until a pod had left.
#[test]
fn while_a_pod_leaves_no_other_queue_loses_its_place() {
    let of = |pods: u32| {
        let (held, waited) = if pods > 0 { (seconds(3600), seconds(0)) } else { (seconds(0), seconds(60)) };
        let stats = Some(tasks(1000));
        ObservedQueue { pods, ready: pods, held_for: held, waited_for: waited, stats, ..queue() }
    };
    let shares = |leaving: u32, held: &[u32]| {
        let observed: Vec<ObservedQueue> = held.iter().map(|pods| of(*pods)).collect();
        let mut decisions: Vec<Decision> =
            observed.iter().map(|queue| decide(queue, Memory::default(), seconds(1))).collect();
        let limit = Connections { limit: 2 * 3 + 5, others: 0, others_steady: 0, leaving };
        share(&limit, &observed, &mut decisions);
        decisions.iter().map(|one| one.pods_desired).collect::<Vec<_>>()
    };
    assert_eq!(shares(0, &[1, 1, 1, 0]), [1, 1, 0, 0]);
    assert_eq!(shares(1, &[1, 1, 0, 0]), [1, 1, 0, 0]);
    assert_eq!(shares(0, &[1, 1, 0, 0]).iter().sum::<u32>(), 3);
}

/// Before the fix, a queue with tasks had no pod as long as others' connections peaked again and again.
#[test]
fn a_queue_that_waits_gets_a_place_during_a_peak_of_others() {
    let (observed, mut decisions) = queues(&[(30, 30), (0, 100)]);
    share(&Connections { limit: 100, others: 40, others_steady: 5, leaving: 0 }, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [13, 0], "some give theirs back");
    let (observed, mut decisions) = queues(&[(13, 30), (0, 100)]);
    share(&Connections { limit: 100, others: 40, others_steady: 5, leaving: 0 }, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [13, 12]);
}

#[test]
fn pods_that_work_for_nobody_leave_their_places_to_others() {
    let busy = ObservedQueue { total: 400, ..queue() };
    let of = |queue: ObservedQueue| {
        let both = [queue, ObservedQueue { stats: Some(tasks(1000)), ..busy.clone() }];
        let mut decisions: Vec<Decision> =
            both.iter().map(|queue| decide(queue, Memory::default(), seconds(1))).collect();
        share(
            &Connections { limit: 2 * 40 + 9, others: 0, others_steady: 0, leaving: 0 },
            &both,
            &mut decisions,
        );
        decisions.iter().map(|one| one.pods_desired).collect::<Vec<_>>()
    };
    let fixed =
        ObservedQueue { scaling: rowlock_plan::Scaling::Fixed, stats: Some(tasks(1000)), ..busy.clone() };
    assert_eq!(of(fixed.clone()), [20, 20]);
    // Paused, or none of its pods has become ready for minutes.
    assert_eq!(of(ObservedQueue { paused: true, ..fixed.clone() })[1], 40);
    let pending = ObservedQueue { pods: 20, unready_for: seconds(3600), ..fixed };
    assert_eq!(of(pending)[0], 1);
}

#[test]
fn a_peak_of_others_ends_no_pods_and_lets_none_in() {
    let (observed, mut decisions) = queues(&[(20, 20), (10, 20)]);
    let peak = Connections { limit: 100, others: 80, others_steady: 20, leaving: 0 };
    share(&peak, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [20, 10]);
    let stay = Connections { others_steady: 80, ..peak };
    let (observed, mut decisions) = queues(&[(20, 20), (10, 20)]);
    share(&stay, &observed, &mut decisions);
    assert_eq!([decisions[0].pods_desired, decisions[1].pods_desired], [3, 2]);
}

/// Over hours, with a pod that takes half a minute to get ready and to go: who is broken holds nobody up,
/// and everybody works at times.
#[test]
fn nobody_starves() {
    const STEP: u64 = 10;
    for (most, count) in [(1_u32, 4_usize), (2, 5), (3, 4)] {
        let broken = |index: usize| index % 3 == 1;
        let (mut pods, mut since, mut asked) = (vec![0_u32; count], vec![0_u64; count], vec![0_u64; count]);
        let (mut worked, mut tried) = (vec![0_u64; count], vec![0_u64; count]);
        for now in (0..4 * 3600).step_by(usize::try_from(STEP).unwrap_or(1)) {
            let is_ready = |index: usize| pods[index] > 0 && !broken(index) && now - since[index] >= 30;
            let observed: Vec<ObservedQueue> = (0..count)
                .map(|index| {
                    let held = pods[index] > 0;
                    let lasts = |holds: bool, from: u64| seconds(if holds { now - from } else { 0 });
                    ObservedQueue {
                        pods: pods[index],
                        held_for: lasts(held, since[index]),
                        unready_for: lasts(held && !is_ready(index), since[index]),
                        waited_for: lasts(!held, asked[index]),
                        stats: Some(tasks(1000)),
                        scaling: rowlock_plan::Scaling::Fixed,
                        ..queue()
                    }
                })
                .collect();
            let mut decisions: Vec<Decision> =
                observed.iter().map(|queue| decide(queue, Memory::default(), seconds(now))).collect();
            for index in 0..count {
                worked[index] += if is_ready(index) { STEP } else { 0 };
                tried[index] += if pods[index] > 0 { STEP } else { 0 };
            }
            let limit = Connections { limit: 2 * most + 5, others: 0, others_steady: 0, leaving: 0 };
            share(&limit, &observed, &mut decisions);
            for (index, decision) in decisions.iter().enumerate() {
                match (pods[index], decision.pods_desired) {
                    (0, wanted) if wanted > 0 => since[index] = now,
                    (held, 0) if held > 0 => asked[index] = now,
                    _ => (),
                }
                pods[index] = decision.pods_desired;
            }
        }
        for index in 0..count {
            assert!(tried[index] > 600, "{most} places: {index} was never tried: {tried:?}");
            assert!(broken(index) || worked[index] > 1200, "{most} places: {index} starves: {worked:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn never_more_pods_than_connections_allow(
        pods in prop::collection::vec((0_u32..30, 0_u32..30), 1..8), limit in 0_u32..200,
        others in 0_u32..100, leaving in 0_u32..20
    ) {
        let (observed, mut decisions) = queues(&pods);
        let connections = Connections { limit, others, others_steady: others, leaving };
        share(&connections, &observed, &mut decisions);
        let sum: u32 = decisions.iter().map(|one| one.pods_desired).sum();
        let held: u32 = pods.iter().map(|(held, _)| held).sum();
        let most = connections.pods();
        prop_assert!(sum <= most);
        let grown = |(one, (held, _)): (&Decision, &(u32, u32))| one.pods_desired.saturating_sub(*held);
        let grown: u32 = decisions.iter().zip(&pods).map(grown).sum();
        prop_assert!(grown == 0 || held + leaving + grown <= most);
        let room: u32 = pods.iter().map(|(held, asked)| held.max(asked)).sum();
        if room + leaving <= most {
            prop_assert!(decisions.iter().zip(&pods).all(|(one, (_, asked))| one.pods_desired == *asked));
        }
    }

    #[test]
    fn shares_settle_and_then_stay(
        pods in prop::collection::vec((0_u32..30, 0_u32..30), 1..8), limit in 5_u32..200
    ) {
        let mut held = pods.clone();
        let connections = Connections { limit, others: 0, others_steady: 0, leaving: 0 };
        let mut last = Vec::new();
        // What leaves has left by the next poll.
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
