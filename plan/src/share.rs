//! How the connections of a database are shared by the pods of its queues.

use std::cmp::Reverse;
use std::time::Duration;

use crate::{Connections, Decision, ObservedQueue, Reason};

/// How long a pod that is not ready keeps the place of a queue that waits for one: longer than a usual
/// start with a large image takes.
const MAX_UNREADY: Duration = Duration::from_mins(3);

/// How long a queue with tasks keeps its only place while another one with tasks has none: long beside the
/// start of a pod, which each change costs.
const MIN_HOLD: Duration = Duration::from_mins(10);

/// Lowers what was decided for the queues of a database to what its connections allow.
///
/// Places go round in five rounds, until none is left:
///
/// 1. Each queue that has tasks gets one. A queue that has a pod keeps it for ten minutes, then the queue
///    that has waited longest gets its place. If its pod does not become ready, it loses its place after
///    three.
/// 2. `autoscaling.min` is kept.
/// 3. Each queue with tasks gets the workers that [`decide`](crate::decide) computed for them.
/// 4. What is left keeps pods that have nothing to do.
/// 5. Pods that the cluster had no room for get places that nobody else asks for.
///
/// Within a round each queue gets a pod before any queue gets a second, and so on: a small demand is met, and
/// large ones share the rest. Of a remainder, the queues that hold more get more, so that few pods move. A
/// queue that has too many pods loses them at once, and another one gets them when they are gone: pods that
/// terminate still hold their connections. A queue whose scaling is suspended keeps what it has, and the
/// others share the rest.
pub fn share(connections: &Connections, queues: &[ObservedQueue], decisions: &mut [Decision]) {
    let held: Vec<u32> = queues.iter().map(|queue| queue.pods).collect();
    let demands: Vec<Demand> =
        queues.iter().zip(&*decisions).map(|(queue, decision)| Demand::of(queue, decision)).collect();
    let suspended = sum(demands.iter().map(|demand| demand.suspended));
    let most = connections.pods();
    let holding = sum(held.iter().copied());
    let stay = connections.pods_kept();
    let waits = demands.iter().zip(&held).any(|(demand, held)| demand.first > 0 && *held == 0);
    let target = if !waits && most < holding && holding <= stay {
        // Others hold more connections for a moment. A pod that ended now would help nobody.
        demands.iter().zip(&held).map(|(demand, held)| demand.desired.min(*held)).collect()
    } else {
        let places = if waits { most } else { most.max(stay.min(holding)) };
        targets(places.saturating_sub(suspended), connections.leaving, &demands, queues)
    };
    let present = holding.saturating_add(connections.leaving);
    let grown = growth(most.saturating_sub(present), &target, &demands, queues);
    for (index, (queue, decision)) in queues.iter().zip(decisions).enumerate() {
        let allowed = target[index].min(held[index].saturating_add(grown[index]));
        if decision.reason.keeps_pods() || allowed >= decision.pods_desired {
            continue;
        }
        decision.pods_desired = allowed;
        decision.workers_desired = queue.workers_on(allowed).min(decision.workers_desired);
        decision.reason = Reason::Connections;
    }
}

/// The pods that a queue asks for, by how urgent they are.
struct Demand {
    /// Those that it keeps in any case.
    suspended: u32,
    /// One, if any task is there.
    first: u32,
    /// `autoscaling.min`, at most `desired`.
    min: u32,
    /// The workers that were computed for its tasks, at most `desired`.
    needed: u32,
    /// All but those that the cluster had no room for.
    placed: u32,
    /// All of them.
    desired: u32,
}

impl Demand {
    fn of(queue: &ObservedQueue, decision: &Decision) -> Self {
        let desired = decision.pods_desired;
        if decision.reason.keeps_pods() {
            return Self { suspended: desired, first: 0, min: 0, needed: 0, placed: 0, desired: 0 };
        }
        let workers = decision.demand.unwrap_or(decision.workers_desired);
        let needed = match &queue.stats {
            Some(stats) if stats.is_idle() => 0,
            // Its tasks could not start, and no pod has become ready.
            Some(stats) if queue.paused => queue.pods_for(stats.running_workers()),
            Some(_) if queue.unready_for >= MAX_UNREADY => 1,
            Some(stats) if decision.inputs.is_none() => queue.pods_for(stats.tasks().min(workers)),
            Some(_) => queue.pods_for(workers),
            // Its statistics are unknown: all of its pods may be needed.
            None => desired,
        };
        // One is always tried: a pod that does not become ready loses its place by its rank.
        let placed = queue.room.map_or(desired, |room| desired.min(room.max(1)));
        let needed = needed.min(placed);
        let min = queue.pods_for(queue.least_workers()).min(placed);
        Self { suspended: 0, first: needed.min(1), min, needed, placed, desired }
    }
}

/// What each queue gets in the end, in the five rounds of [`share`].
fn targets(places: u32, leaving: u32, demands: &[Demand], queues: &[ObservedQueue]) -> Vec<u32> {
    let held: Vec<u32> = queues.iter().map(|queue| queue.pods).collect();
    let mut shares = vec![0; demands.len()];
    let with_tasks = (0..demands.len()).filter(|&index| demands[index].first > 0).collect();
    for index in in_turn(places, leaving, with_tasks, queues).into_iter().take(usize_of(places)) {
        shares[index] = 1;
    }
    for round in [
        |demand: &Demand| demand.min,
        |demand: &Demand| demand.needed,
        |demand: &Demand| demand.placed,
        |demand: &Demand| demand.desired,
    ] {
        let left = places.saturating_sub(sum(shares.iter().copied()));
        let asked: Vec<u32> =
            demands.iter().zip(&shares).map(|(demand, share)| round(demand).max(*share)).collect();
        shares = fill(left, &shares, &asked, &held);
    }
    shares
}

/// The order in which queues with tasks get their first place: that of [`rank`]. But while pods leave, a
/// queue whose turn is over keeps its place: those pods make room for one that waits. Otherwise one waiting
/// queue would end the turns of all others, one after the other, until the first pod had left.
fn in_turn(places: u32, leaving: u32, mut order: Vec<usize>, queues: &[ObservedQueue]) -> Vec<usize> {
    order.sort_by_key(|&index| (rank(&queues[index]), index));
    let keep = |index: &&usize| matches!(rank(&queues[**index]).0, WITHIN_TURN | TURN_IS_OVER);
    let free = usize_of(places).saturating_sub(order.iter().filter(keep).count());
    let mut admitted = free.max(usize::from(leaving == 0));
    let mut turns: Vec<(u8, usize)> = Vec::with_capacity(order.len());
    for index in order {
        let rank = rank(&queues[index]).0;
        let is_admitted = rank != WAITS || admitted > 0;
        admitted = admitted.saturating_sub(usize::from(rank == WAITS));
        turns.push((if is_admitted { rank } else { WAITS_LONGER }, index));
    }
    turns.sort_by_key(|(rank, _)| *rank);
    turns.into_iter().map(|(_, index)| index).collect()
}

/// The ranks of queues with tasks, best first.
const WITHIN_TURN: u8 = 0;
const WAITS: u8 = 1;
const TURN_IS_OVER: u8 = 2;
const WAITS_LONGER: u8 = 3;
const NEVER_READY: u8 = 4;

/// Which queue is the first to have a place: one within its turn, then the one that has waited longest, then
/// one whose turn is over, and last one whose pods do not become ready. A queue that has given up its place
/// waits like others, so it is tried again.
fn rank(queue: &ObservedQueue) -> (u8, Reverse<Duration>) {
    let unready = queue.not_starting || queue.unready_for >= MAX_UNREADY;
    match queue.pods {
        0 => (WAITS, Reverse(queue.waited_for.max(queue.oldest_wait()))),
        _ if unready => (NEVER_READY, Reverse(Duration::ZERO)),
        _ if queue.held_for < MIN_HOLD => (WITHIN_TURN, Reverse(Duration::ZERO)),
        _ => (TURN_IS_OVER, Reverse(Duration::ZERO)),
    }
}

/// Which queues get the places that are free now: those that have tasks and no pod first, the longest wait
/// first; then those that need more for their tasks, then the others.
fn growth(free: u32, target: &[u32], demands: &[Demand], queues: &[ObservedQueue]) -> Vec<u32> {
    let held: Vec<u32> = queues.iter().zip(target).map(|(queue, target)| queue.pods.min(*target)).collect();
    let has_none = |index: usize| held[index] == 0 && target[index] > 0 && demands[index].first > 0;
    let mut reached = held.clone();
    give_one(free, (0..queues.len()).filter(|&index| has_none(index)).collect(), queues, &mut reached);
    for round in [
        |demand: &Demand| demand.needed.max(demand.min),
        |demand: &Demand| demand.placed,
        |demand: &Demand| demand.desired,
    ] {
        let used = sum(reached.iter().zip(&held).map(|(reached, held)| reached - held));
        let asked: Vec<u32> = demands
            .iter()
            .zip(target)
            .zip(&reached)
            .map(|((demand, target), reached)| round(demand).min(*target).max(*reached))
            .collect();
        reached = fill(free.saturating_sub(used), &reached, &asked, &held);
    }
    reached.iter().zip(&held).map(|(reached, held)| reached - held).collect()
}

/// Gives a place to each of these, in the order of [`rank`], until none is left.
fn give_one(places: u32, mut among: Vec<usize>, queues: &[ObservedQueue], shares: &mut [u32]) {
    among.sort_by_key(|&index| (rank(&queues[index]), index));
    for index in among.into_iter().take(usize_of(places)) {
        shares[index] += 1;
    }
}

/// Raises shares towards what is asked, with this many more places, the lowest shares first (water filling).
/// What cannot be divided goes to the queues that hold most.
fn fill(places: u32, shares: &[u32], asked: &[u32], held: &[u32]) -> Vec<u32> {
    let wants = sum(shares.iter().zip(asked).map(|(share, asked)| asked - share));
    if wants <= places {
        return asked.to_vec();
    }
    let total = |level: u32| {
        sum(shares.iter().zip(asked).map(|(share, asked)| (*asked).min(level).saturating_sub(*share)))
    };
    // The highest level to which all can be raised.
    let (mut low, mut high) = (0, asked.iter().copied().max().unwrap_or_default());
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if total(middle) <= places { low = middle } else { high = middle - 1 }
    }
    let mut filled: Vec<u32> =
        shares.iter().zip(asked).map(|(share, asked)| (*asked).min(low).max(*share)).collect();
    let mut more: Vec<usize> =
        (0..filled.len()).filter(|&index| filled[index] == low && asked[index] > low).collect();
    more.sort_by_key(|&index| (Reverse(held[index].min(asked[index])), asked[index], index));
    let rest = places.saturating_sub(total(low));
    for index in more.into_iter().take(usize_of(rest)) {
        filled[index] += 1;
    }
    filled
}

fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}
