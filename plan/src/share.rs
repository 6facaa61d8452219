//! How the connections of a database are shared by the pods of its queues.

use std::cmp::Reverse;

use crate::{Decision, ObservedQueue, Reason};

/// What an instance may hold; the worker keeps to the same number.
pub const CONNECTIONS_PER_POD: u32 = 2;

/// The least that is left to everybody else: a psql, a migration, a backup, the pod more that a rollout makes.
const LEAST_RESERVE: u32 = 5;

/// Of all connections one in so many is left to others.
const RESERVED_SHARE: u32 = 10;

/// The connections of a database, as far as they limit pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// So many at most.
    pub limit: u32,
    /// So many of them are held by others than our pods.
    pub others: u32,
    /// Our pods beyond those that are asked for: they terminate, or a rollout has made one more.
    pub leaving: u32,
}

impl Connections {
    /// What is left to others, whatever the tasks ask for.
    #[must_use]
    pub fn reserve(&self) -> u32 {
        (self.limit / RESERVED_SHARE).max(LEAST_RESERVE)
    }

    /// Pods that there may be, the leaving ones among them. One at least: where it cannot connect, its state says so.
    #[must_use]
    pub fn pods(&self) -> u32 {
        let free = self.limit.saturating_sub(self.others).saturating_sub(self.reserve());
        (free / CONNECTIONS_PER_POD).max(1)
    }
}

/// Lowers what was decided for the queues of a database to what its connections allow.
///
/// Everybody gets a pod before anybody gets a second, and so on: who asks for little gets it. Who has too many gives them back at
/// once; who may have more gets it when those are really gone. So pods that terminate are counted, and are no reason to end others.
/// A queue whose scaling is suspended keeps what it has, and the others share the rest.
pub fn share(connections: &Connections, queues: &[ObservedQueue], decisions: &mut [Decision]) {
    let held: Vec<u32> = queues.iter().map(|queue| queue.pods).collect();
    let (mut asked, mut kept) = (Vec::with_capacity(queues.len()), 0_u32);
    for decision in &*decisions {
        let suspended = decision.reason == Reason::Suspended;
        asked.push(if suspended { 0 } else { decision.pods_desired });
        kept = kept.saturating_add(if suspended { decision.pods_desired } else { 0 });
    }
    let most = connections.pods();
    let target = fair(most.saturating_sub(kept), &asked, &held);
    let present = held.iter().fold(connections.leaving, |sum, pods| sum.saturating_add(*pods));
    let missing: Vec<u32> =
        target.iter().zip(&held).map(|(target, held)| target.saturating_sub(*held)).collect();
    let grown = fair(most.saturating_sub(present), &missing, &held);
    for (index, (queue, decision)) in queues.iter().zip(decisions).enumerate() {
        let allowed = target[index].min(held[index].saturating_add(grown[index]));
        if decision.reason == Reason::Suspended || allowed >= decision.pods_desired {
            continue;
        }
        decision.pods_desired = allowed;
        decision.workers_desired = queue.workers_on(allowed).min(decision.workers_desired);
        decision.reason = Reason::Connections;
    }
}

/// Shares so many among those who ask: the smallest wish first, and what it leaves over is for the others. Where not everybody
/// gets one, those who hold one keep it.
fn fair(most: u32, asked: &[u32], held: &[u32]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|&index| (asked[index], Reverse(held[index]), index));
    let (mut rest, mut shares) = (most, vec![0; asked.len()]);
    for (position, &index) in order.iter().enumerate() {
        let others = u32::try_from(order.len() - position).unwrap_or(u32::MAX);
        shares[index] = asked[index].min(rest.div_ceil(others));
        rest -= shares[index];
    }
    shares
}
