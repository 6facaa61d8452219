use rowlock_plan::{Backlog, Memory, ObservedQueue, decide};

use crate::{queue, seconds};

/// The operator polls every two seconds.
const TICK: u64 = 2;
const SERVICE_SECONDS: f64 = 0.5;
const POD_START: u64 = 3;

/// Pods asked for, every tick, while tasks arrive as told (per second).
fn simulate(until: u64, arrivals: impl Fn(u64) -> u64) -> Vec<(u64, u32)> {
    let mut memory = Memory::default();
    let mut pods: Vec<u64> = Vec::new(); // when each is ready
    let mut arrived: Vec<u64> = Vec::new(); // when each waiting task came
    let mut history = Vec::new();
    let mut running = 0;
    for now in 0..until {
        arrived.extend(std::iter::repeat_n(now, count(arrivals(now))));
        if now % TICK == 0 {
            let recent: u64 = (now.saturating_sub(9)..=now).map(&arrivals).sum();
            let stats = Backlog {
                available: arrived.len() as u64,
                running,
                arrivals_per_second: f64::from(count::<u32, _>(recent)) / 10.0,
                mean_service_seconds: (now > 20).then_some(SERVICE_SECONDS),
                oldest_available_seconds: arrived.first().map(|came| f64::from(count::<u32, _>(now - came))),
                ..Backlog::default()
            };
            let pods_now = count(pods.len());
            let observed = ObservedQueue { stats: Some(stats), pods: pods_now, ..queue() };
            let decision = decide(&observed, memory, seconds(now));
            pods.resize(count(decision.pods_desired), now + POD_START);
            memory = decision.memory;
            history.push((now, decision.pods_desired));
        }
        // Ten workers per pod, two tasks per second each; what starts in the second's last half still runs.
        let ready = pods.iter().filter(|ready| **ready <= now).count();
        let done = arrived.len().min(ready * 20);
        arrived.drain(..done);
        running = (done as u64).min(ready as u64 * 10) / 2;
    }
    assert!(arrived.is_empty(), "{} tasks are left", arrived.len());
    history
}

/// The counts here are small enough for every type of number.
fn count<To: TryFrom<From>, From>(number: From) -> To {
    number.try_into().ok().expect("the simulation is small")
}

/// How often the number of pods changed its direction.
fn turns(history: &[(u64, u32)]) -> usize {
    let mut steps: Vec<bool> =
        history.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[0].1 < pair[1].1).collect();
    steps.dedup();
    steps.len().saturating_sub(1)
}

fn pods_at(history: &[(u64, u32)], when: u64) -> u32 {
    history.iter().find(|(now, _)| *now >= when).expect("the simulation lasts longer").1
}

#[test]
fn a_burst_goes_from_zero_up_in_one_step_and_back_to_zero() {
    let history = simulate(200, |now| if now == 10 { 1500 } else { 0 });
    assert_eq!(pods_at(&history, 8), 0);
    assert_eq!(pods_at(&history, 10), 10, "at the first look, all that is needed: {history:?}");
    assert_eq!(pods_at(&history, 60), 10, "one window later not yet");
    assert_eq!(history.last().unwrap().1, 0);
    assert_eq!(turns(&history), 1, "{history:?}");
}

#[test]
fn steady_load_that_scatters_does_not_flap() {
    // Twenty per second on average, between 8 and 32 and never the same twice in a row.
    let arrivals = |now: u64| if (30..630).contains(&now) { 8 + (now * 7919) % 25 } else { 0 };
    let history = simulate(900, arrivals);
    assert_eq!(pods_at(&history, 28), 0);
    let steady: Vec<_> = history.iter().copied().filter(|(now, _)| (150..630).contains(now)).collect();
    let (least, most) = steady.iter().fold((u32::MAX, 0), |(l, m), (_, pods)| (l.min(*pods), m.max(*pods)));
    assert!(least >= 2 && most <= 5, "{least} to {most} pods");
    assert!(turns(&history) <= 5, "{history:?}");
    assert_eq!(history.last().unwrap().1, 0);
}

#[test]
fn a_trickle_keeps_one_pod() {
    // One task every ten seconds: never idle for a whole window, so never gone.
    let history = simulate(600, |now| u64::from(now % 10 == 5 && now < 500));
    assert!(
        history.iter().filter(|(now, _)| (8..500).contains(now)).all(|(_, pods)| *pods == 1),
        "{history:?}"
    );
    assert_eq!(history.last().unwrap().1, 0);
    assert_eq!(turns(&history), 1);
}
