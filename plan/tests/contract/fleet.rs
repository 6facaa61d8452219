//! Many queues share few places: no queue with tasks waits while pods of others have nothing to do.

use proptest::prelude::*;
use rowlock_plan::{Backlog, Connections, Decision, Memory, ObservedQueue, decide, share};

use crate::{queue, runs, seconds};

/// The operator polls every two seconds, a pod starts within four, and an idle pod ends within two.
const POLL: u64 = 2;
const POD_START: u64 = 4;
/// No queue with tasks may be without a pod for longer, while pods of others have nothing to do.
const LONGEST: u64 = 30;

/// One queue of the fleet: ten workers in each pod, half a second for each task.
#[derive(Debug, Clone, Default)]
struct Member {
    waiting: u64,
    running: u64,
    memory: Memory,
    /// When each pod becomes ready.
    pods: Vec<u64>,
    /// Since when it has pods, or waits for its first.
    held_since: u64,
    asked_since: Option<u64>,
    starved_since: Option<u64>,
}

impl Member {
    fn ready(&self, now: u64) -> u32 {
        u32::try_from(self.pods.iter().filter(|ready| **ready <= now).count()).expect("small")
    }

    fn observe(&self, now: u64) -> ObservedQueue {
        let stats =
            Backlog { available: self.waiting, running: self.running, runs: runs(0.5), ..Backlog::default() };
        let pods = u32::try_from(self.pods.len()).expect("small");
        let lasts = |since: Option<u64>| seconds(since.map_or(0, |since| now - since));
        ObservedQueue {
            total: 1000,
            pods,
            ready: self.ready(now),
            held_for: lasts((pods > 0).then_some(self.held_since)),
            waited_for: lasts(self.asked_since),
            stats: Some(stats),
            pod_start: seconds(POD_START),
            ..queue()
        }
    }

    /// Answers how many pods go.
    fn apply(&mut self, decision: Decision, now: u64) -> u32 {
        let (before, after) = (self.pods.len(), usize::try_from(decision.pods_desired).expect("small"));
        let wanted = decision.demand.unwrap_or_default() > 0;
        self.memory = decision.memory;
        if before == 0 && after > 0 {
            self.held_since = now;
        }
        self.asked_since = (after == 0 && wanted).then(|| self.asked_since.unwrap_or(now));
        self.pods.resize(after, now + POD_START);
        u32::try_from(before.saturating_sub(after)).expect("small")
    }

    fn work(&mut self, now: u64) {
        let started = self.waiting.min(u64::from(self.ready(now)) * 10 * 2 * POLL);
        self.waiting -= started;
        self.running = if started > 0 { started.min(u64::from(self.ready(now)) * 10) } else { 0 };
    }
}

/// Simulates the fleet. Returns the longest time for which a queue with tasks had no pod while others were
/// idle.
fn longest_starvation(places: u32, comes: &[(u64, u64)], until: u64) -> u64 {
    let mut fleet = vec![Member::default(); comes.len()];
    let (mut leaving, mut longest) = (0, 0);
    for now in (0..until).step_by(usize::try_from(POLL).expect("small")) {
        for (index, (member, (every, tasks))) in fleet.iter_mut().zip(comes).enumerate() {
            if (now / POLL + index as u64).is_multiple_of((*every / POLL).max(1)) {
                member.waiting += tasks;
            }
        }
        let observed: Vec<ObservedQueue> = fleet.iter().map(|member| member.observe(now)).collect();
        let mut decisions: Vec<Decision> = observed
            .iter()
            .zip(&fleet)
            .map(|(observed, member)| decide(observed, member.memory.clone(), seconds(now)))
            .collect();
        let limit = Connections { limit: 2 * places + 5, others: 0, others_steady: 0, leaving };
        share(&limit, &observed, &mut decisions);
        leaving = fleet.iter_mut().zip(decisions).map(|(member, decision)| member.apply(decision, now)).sum();
        let idle = |member: &Member| member.waiting + member.running == 0 && member.ready(now) > 0;
        let some_idle = fleet.iter().any(idle);
        for member in &mut fleet {
            let starved = some_idle && member.waiting > 0 && member.pods.is_empty();
            member.starved_since = starved.then(|| member.starved_since.unwrap_or(now));
            longest = longest.max(member.starved_since.map_or(0, |since| now - since));
            member.work(now);
        }
    }
    longest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_queue_with_tasks_starves_beside_idle_pods(
        places in 1_u32..12,
        comes in prop::collection::vec((2_u64..120, prop_oneof![1_u64..5, 1_u64..500]), 1..30),
    ) {
        let longest = longest_starvation(places, &comes, 600);
        prop_assert!(longest <= LONGEST, "{longest} s");
    }
}

/// Before, a busy queue got no pod while sixty queues with a task each half minute kept theirs.
#[test]
fn sixty_small_queues_do_not_starve_a_busy_one() {
    let mut comes = vec![(30, 1); 60];
    comes.push((2, 40));
    let longest = longest_starvation(40, &comes, 900);
    assert!(longest <= 10, "{longest} s");
}
