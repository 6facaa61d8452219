//! The oracle: knows the load and finds the cheapest schedule of pods with which the 95th percentile of the
//! waits is within the target. It exists, so the optimum is at most that.

mod claims;
mod string;
mod work;

use std::collections::VecDeque;

use crate::laws::Schedule;
use crate::load::{FaultKind, Load, QueueLoad};
use crate::outcome::{Limits, Outcome};
use crate::score::{Sample, percentile};
use crate::time::{Micros, micros, seconds};
use crate::world::{ScaleIn, World};
use string::{Stretch, taut_string};
use work::Work;

/// Shares of the wait target that plans let tasks wait.
const WAIT_SHARES: [f64; 7] = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.2];

/// Shares of their time that plans keep workers busy.
const BUSY_SHARES: [f64; 13] = [1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.78, 0.74, 0.7, 0.65, 0.6, 0.5, 0.4];

/// A plan that saves less than one in this many worker-hours is not tried.
const WORTH_TRYING: u128 = 200;

/// Of all tasks, one in this many may wait for longer than the target.
const LATE_SHARE: u64 = 20;

/// If the shortest possible waits exceed the target, this many times those are good enough.
const NEARLY: f64 = 1.05;

/// No task waits for longer than this many times the target.
const PATIENCE: f64 = 10.0;

/// A schedule, and what it costs at least.
#[derive(Debug)]
struct Plan {
    steps: Vec<(Micros, u32)>,
    pod_micros: u128,
}

/// The best for each queue on its own, without the budget.
pub(crate) fn oracle(load: &Load, seed: u64, traced: bool) -> (Outcome, Vec<Sample>) {
    let (mut total, mut samples) = (Outcome::default(), Vec::new());
    for queue in &load.queues {
        let search = Oracle { load, queue, seed };
        let (steps, outcome) = search.best();
        if traced {
            let again = search.run(&steps, Limits::default(), true);
            add_samples(&mut samples, &again.unwrap_or_default().1);
        }
        total.add(outcome);
    }
    (total, samples)
}

fn add_samples(samples: &mut Vec<Sample>, more: &[Sample]) {
    if samples.is_empty() {
        samples.extend_from_slice(more);
        return;
    }
    for (sample, other) in samples.iter_mut().zip(more) {
        sample.add(other);
    }
}

/// What a plan must reach.
#[derive(Debug, Clone, Copy)]
struct Goal {
    /// The longest wait of all tasks except for one in twenty.
    p95: Micros,
    /// The longest wait of those: none is abandoned.
    longest: Micros,
}

impl Goal {
    fn is_reached(&self, outcome: &Outcome) -> bool {
        let late = outcome.waits.iter().filter(|wait| **wait > self.p95).count() as u64;
        let longest = outcome.waits.iter().max().copied().unwrap_or_default();
        late <= outcome.waits.len() as u64 / LATE_SHARE && longest <= self.longest
    }
}

/// The search for one queue.
#[derive(Debug, Clone, Copy)]
struct Oracle<'a> {
    load: &'a Load,
    queue: &'a QueueLoad,
    seed: u64,
}

impl Oracle<'_> {
    /// The cheapest plan that reaches the goal, and what comes of it. With all workers all the time that is
    /// always possible.
    fn best(&self) -> (Vec<(Micros, u32)>, Outcome) {
        let all = self.plan(&[Stretch { from: 0.0, until: self.load.seconds, slope: f64::INFINITY }], 1.0, 0);
        let (outcome, _) = self.run(&all.steps, Limits::default(), false).unwrap_or_default();
        let goal = self.goal(&outcome);
        let mut plans = self.plans();
        plans.sort_by(|one, other| (one.pod_micros, &one.steps).cmp(&(other.pod_micros, &other.steps)));
        plans.dedup_by(|one, other| one.steps == other.steps);
        let mut best = (&all, outcome);
        for plan in &plans {
            let most = best.1.workers;
            if self.workers(plan) + most / WORTH_TRYING >= most {
                break;
            }
            let limits = Limits { late: Some((goal.p95, self.may_be_late())), workers: Some(most) };
            let outcome = self.run(&plan.steps, limits, false).map(|(outcome, _)| outcome);
            let better = |outcome: &Outcome| outcome.workers < most && goal.is_reached(outcome);
            best = outcome.filter(better).map_or(best, |outcome| (plan, outcome));
        }
        (best.0.steps.clone(), best.1)
    }

    /// Where all workers are not enough for the target: nearly as good as with all of them.
    fn goal(&self, with_all: &Outcome) -> Goal {
        let mut waits = with_all.waits.clone();
        let [p95, longest] = [95, 100].map(|percent| seconds(percentile(&mut waits, percent)) * NEARLY);
        let p95 = p95.max(self.queue.wait_target);
        Goal { p95: micros(p95), longest: micros(longest.max(PATIENCE * p95)) }
    }

    fn may_be_late(&self) -> u64 {
        self.queue.tasks.len() as u64 / LATE_SHARE
    }

    fn run(&self, steps: &[(Micros, u32)], limits: Limits, traced: bool) -> Option<(Outcome, Vec<Sample>)> {
        let queues = std::slice::from_ref(self.queue);
        let world =
            World::of(self.load, queues, ScaleIn::IdleFirst, self.seed).without_budget().limit(limits);
        let world = if traced { world.trace() } else { world };
        world.run(&mut Schedule::new(steps))
    }

    fn workers(&self, plan: &Plan) -> u128 {
        plan.pod_micros * u128::from(self.queue.per_pod.max(1))
    }

    fn plans(&self) -> Vec<Plan> {
        let work = Work::of(self.queue, self.load);
        let mut plans = Vec::with_capacity(WAIT_SHARES.len() * BUSY_SHARES.len());
        for share in WAIT_SHARES {
            let string = taut_string(&work.bounds(share * self.queue.wait_target));
            for lead in self.leads() {
                plans.extend(BUSY_SHARES.iter().map(|busy| self.plan(&string, *busy, lead)));
            }
        }
        plans
    }

    /// How long before they are needed pods are asked for.
    fn leads(&self) -> Vec<Micros> {
        let mut leads = vec![micros(self.load.pod_start.most), micros(self.load.pod_start.least)];
        leads.dedup();
        leads
    }

    /// Pods for such a string, each asked for before it is needed.
    fn plan(&self, string: &[Stretch], busy: f64, lead: Micros) -> Plan {
        let per_pod = self.queue.per_pod.max(1);
        let most = self.queue.total.div_ceil(per_pod);
        let least = self.queue.min.min(self.queue.total).div_ceil(per_pod);
        let pods = |slope: f64| whole(slope / busy / f64::from(per_pod)).clamp(least, most.max(least));
        let needed =
            string.iter().map(|stretch| (micros(stretch.from), micros(stretch.until), pods(stretch.slope)));
        let stuck = self.queue.faults.iter().filter(|fault| fault.kind == FaultKind::PodsDoNotStart);
        let needed = stuck.fold(needed.collect(), |needed: Vec<Need>, fault| {
            before(&needed, micros(fault.from), micros(fault.until) + lead)
        });
        let steps = ahead(&needed, lead);
        let ends = steps.iter().skip(1).map(|step| step.0).chain([micros(self.load.seconds)]);
        let pod_micros = steps
            .iter()
            .zip(ends)
            .map(|((from, pods), until)| u128::from(until - from) * u128::from(*pods))
            .sum();
        Plan { steps, pod_micros }
    }
}

/// Whole pods. Sums such as 0.1 + 0.2 come out a hair too high and must not cost a pod.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn whole(pods: f64) -> u32 {
    (pods - 1e-6).ceil() as u32
}

/// From when until when this many pods are needed. They are in order and without gaps.
type Need = (Micros, Micros, u32);

/// Whatever is needed within that time is needed from its begin on.
fn before(needed: &[Need], from: Micros, until: Micros) -> Vec<Need> {
    let overlaps = |(begin, end, _): &&Need| *begin < until && *end > from;
    let most = needed.iter().filter(overlaps).map(|(.., pods)| *pods).max().unwrap_or_default();
    let parts = needed.iter().flat_map(|(begin, end, pods)| {
        let (early, late) = (from.clamp(*begin, *end), until.clamp(*begin, *end));
        [(*begin, early, *pods), (early, late, most), (late, *end, *pods)]
    });
    parts.filter(|(begin, end, _)| begin < end).collect()
}

/// The highest of what is needed from each moment on until the lead is over.
fn ahead(needed: &[Need], lead: Micros) -> Vec<(Micros, u32)> {
    let needed: Vec<Need> = needed.iter().copied().filter(|(from, until, _)| from < until).collect();
    let asked = needed.iter().map(|(from, ..)| from.saturating_sub(lead));
    let mut moments: Vec<Micros> = asked.chain(needed.iter().map(|(from, ..)| *from)).collect();
    moments.sort_unstable();
    moments.dedup();
    let (mut window, mut next): (VecDeque<(Micros, u32)>, usize) = (VecDeque::new(), 0);
    let mut steps: Vec<(Micros, u32)> = Vec::new();
    for now in moments {
        while let Some((_, until, pods)) = needed.get(next).filter(|(from, ..)| *from <= now + lead) {
            while window.back().is_some_and(|(_, less)| less <= pods) {
                window.pop_back();
            }
            window.push_back((*until, *pods));
            next += 1;
        }
        while window.front().is_some_and(|(until, _)| *until <= now) {
            window.pop_front();
        }
        let pods = window.front().map_or(0, |(_, pods)| *pods);
        if steps.last().is_none_or(|last| last.1 != pods) {
            steps.push((now, pods));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_asked_for_before_they_are_needed() {
        let needed = [(0, 10, 0), (10, 20, 3), (20, 30, 1), (30, 90, 0), (90, 100, 2)];
        let asked = ahead(&needed, 5);
        assert_eq!(asked, [(0, 0), (5, 3), (20, 1), (30, 0), (85, 2)]);
    }

    /// It would cost as much to end a pod and to start another.
    #[test]
    fn short_gaps_are_filled() {
        let needed = [(0, 10, 2), (10, 13, 0), (13, 20, 2), (20, 99, 0)];
        assert_eq!(ahead(&needed, 5), [(0, 2), (20, 0)]);
    }

    #[test]
    fn what_cannot_start_later_is_there_before() {
        let needed = [(0, 10, 1), (10, 20, 3), (20, 30, 1)];
        assert_eq!(before(&needed, 5, 15), [(0, 5, 1), (5, 10, 3), (10, 15, 3), (15, 20, 3), (20, 30, 1)]);
        assert_eq!(before(&needed, 22, 25), [(0, 10, 1), (10, 20, 3), (20, 22, 1), (22, 25, 1), (25, 30, 1)]);
    }

    #[test]
    fn whole_pods() {
        assert_eq!([0.0, 0.1 + 0.2, 3.0 + 1e-9, 3.1].map(whole), [0, 1, 3, 4]);
    }
}
