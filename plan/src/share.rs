//! How the connections of a database are shared by the pods of its queues.

use std::cmp::Reverse;
use std::time::Duration;

use crate::{Decision, ObservedQueue, Reason};

/// What an instance may hold; the worker keeps to the same number.
pub const CONNECTIONS_PER_POD: u32 = 2;

/// The least that is left to everybody else: a psql, a migration, a backup, the pod more that a rollout
/// makes.
const LEAST_RESERVE: u32 = 5;

/// Of all connections one in so many is left to others.
const RESERVED_SHARE: u32 = 10;

/// How long a pod that is not ready keeps the place of a queue that waits for one: longer than a usual
/// start with a large image takes.
const MAX_UNREADY: Duration = Duration::from_mins(3);

/// How long a queue keeps its only place while another has none: long beside the start of a pod, which each
/// change costs.
const MIN_HOLD: Duration = Duration::from_mins(10);

/// The connections of a database, as far as they limit pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// So many at most.
    pub limit: u32,
    /// So many of them are held by others than our pods, at most of late: what pods that are still to come
    /// must leave to them.
    pub others: u32,
    /// So many of them others have held all the time of late: what pods that hold theirs must leave to
    /// them. At most `others`.
    pub others_steady: u32,
    /// Our pods beyond those that are asked for: they terminate, or a rollout has made one more.
    pub leaving: u32,
}

impl Connections {
    /// What is left to others, whatever the tasks ask for.
    #[must_use]
    pub fn reserve(&self) -> u32 {
        (self.limit / RESERVED_SHARE).max(LEAST_RESERVE)
    }

    /// Pods that there may be, the leaving ones among them. One at least: where it cannot connect, its state
    /// says so.
    #[must_use]
    pub fn pods(&self) -> u32 {
        self.beside(self.others)
    }

    /// Pods that may stay, of those that hold their connections: a peak of others' connections is no reason
    /// to end them.
    #[must_use]
    pub fn pods_kept(&self) -> u32 {
        self.beside(self.others_steady.min(self.others))
    }

    fn beside(&self, others: u32) -> u32 {
        let free = self.limit.saturating_sub(others).saturating_sub(self.reserve());
        (free / CONNECTIONS_PER_POD).max(1)
    }
}

/// Lowers what was decided for the queues of a database to what its connections allow.
///
/// Everybody gets a pod before anybody gets a second, and so on: who asks for little gets it. Who has too
/// many gives them back at once; who may have more gets it when those are really gone. So pods that terminate
/// are counted, and are no reason to end others. Where not everybody gets one, the places go round: a queue
/// whose pods do not get ready gives its place to one that waits, and a queue that works does so after ten
/// minutes. A queue whose scaling is suspended keeps what it has, and the others share the rest.
pub fn share(connections: &Connections, queues: &[ObservedQueue], decisions: &mut [Decision]) {
    let held: Vec<u32> = queues.iter().map(|queue| queue.pods).collect();
    let (mut asked, mut kept) = (Vec::with_capacity(queues.len()), 0_u32);
    for decision in &*decisions {
        let suspended = decision.reason == Reason::Suspended;
        asked.push(if suspended { 0 } else { decision.pods_desired });
        kept = kept.saturating_add(if suspended { decision.pods_desired } else { 0 });
    }
    let most = connections.pods();
    let holding = held.iter().fold(0_u32, |sum, pods| sum.saturating_add(*pods));
    let stay = connections.pods_kept();
    let target = if most < holding && holding <= stay {
        // A peak of others: what anybody gave back would be of use to nobody here.
        asked.iter().zip(&held).map(|(asked, held)| *asked.min(held)).collect()
    } else {
        targets(most.max(stay.min(holding)).saturating_sub(kept), &asked, queues)
    };
    let present = holding.saturating_add(connections.leaving);
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

/// What each shall have in the end: one each where there are fewer places than queues, in the order of
/// [`standing`].
fn targets(most: u32, asked: &[u32], queues: &[ObservedQueue]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..asked.len()).filter(|&index| asked[index] > 0).collect();
    let places = usize::try_from(most).unwrap_or(usize::MAX);
    if order.len() <= places {
        let held: Vec<u32> = queues.iter().map(|queue| queue.pods).collect();
        return fair(most, asked, &held);
    }
    order.sort_by_key(|&index| (rank(&queues[index]), index));
    let mut shares = vec![0; asked.len()];
    for index in order.into_iter().take(places) {
        shares[index] = 1;
    }
    shares
}

/// Who is the first to have a place: those whose turn it is, those who wait, the longest first, those whose
/// turn is over, and last those whose pods do not get ready. A queue that has given up its place waits like
/// others, so it is tried again.
fn rank(queue: &ObservedQueue) -> (u8, Reverse<Duration>) {
    let unready = queue.not_starting || queue.unready_for >= MAX_UNREADY;
    match queue.pods {
        0 => (1, Reverse(queue.waited_for)),
        _ if unready => (3, Reverse(Duration::ZERO)),
        _ if queue.held_for < MIN_HOLD => (0, Reverse(Duration::ZERO)),
        _ => (2, Reverse(Duration::ZERO)),
    }
}

/// Shares so many among those who ask: the smallest demand first, and what it leaves over is for the others.
/// What cannot be divided stays with those who hold most.
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
