//! Constant rates.

use rowlock_simulation::{Load, QueueLoad};

use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, load, queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("steady-low", Kind::Steady, "few tasks, a worker per pod", low),
    Family::new("steady-middle", Kind::Steady, "20 workers' worth of tasks of a second", middle),
    Family::new("steady-high", Kind::Steady, "half of all workers, tasks of a second", high),
    Family::new("steady-short", Kind::Steady, "many tasks of a tenth of a second", short),
    Family::new("steady-seconds", Kind::Steady, "tasks of five seconds, 5 workers per pod", seconds),
    Family::new("steady-long", Kind::Steady, "tasks of a minute: few arrivals to learn a rate from", long),
    Family::new("steady-big-pods", Kind::Steady, "40 workers per pod", big_pods),
    Family::new("steady-strict", Kind::Steady, "a wait target of a second", strict),
    Family::new("steady-patient", Kind::Steady, "a wait target of half a minute", patient),
    Family::new("steady-single", Kind::Steady, "a worker per pod, tasks of two seconds", single),
    Family::new("trickle", Kind::Changing, "a task of two seconds about each 20 s", trickle),
];

/// A constant rate. `rate` is per second.
#[derive(Debug)]
struct Steady {
    minutes: f64,
    rate: f64,
    service: Service,
    per_pod: u32,
    wait_target: f64,
}

fn steady(seed: u64, shape: &Steady) -> Load {
    let &Steady { minutes, rate, service, per_pod, wait_target } = shape;
    let mut draw = Draw::new(seed);
    let rate = draw.about(rate);
    let tasks = draw.steady(0.0, minutes * MINUTE, rate, service);
    load(minutes, vec![QueueLoad { per_pod, wait_target, ..queue("orders", tasks) }])
}

fn low(seed: u64) -> Load {
    let service = Service::Exponential(0.7);
    steady(seed, &Steady { minutes: 45.0, rate: 6.0, service, per_pod: 1, wait_target: 5.0 })
}

fn middle(seed: u64) -> Load {
    let service = Service::Exponential(1.0);
    steady(seed, &Steady { minutes: 45.0, rate: 20.0, service, per_pod: 10, wait_target: 5.0 })
}

fn high(seed: u64) -> Load {
    let service = Service::LogNormal { mean: 1.0, sigma: 0.5 };
    steady(seed, &Steady { minutes: 60.0, rate: 50.0, service, per_pod: 10, wait_target: 5.0 })
}

fn short(seed: u64) -> Load {
    let service = Service::Exponential(0.1);
    steady(seed, &Steady { minutes: 20.0, rate: 180.0, service, per_pod: 5, wait_target: 5.0 })
}

fn seconds(seed: u64) -> Load {
    let service = Service::Exponential(5.0);
    steady(seed, &Steady { minutes: 60.0, rate: 6.0, service, per_pod: 5, wait_target: 5.0 })
}

fn long(seed: u64) -> Load {
    let service = Service::Exponential(60.0);
    steady(seed, &Steady { minutes: 90.0, rate: 0.7, service, per_pod: 10, wait_target: 5.0 })
}

fn big_pods(seed: u64) -> Load {
    let service = Service::Exponential(2.0);
    let mut load =
        steady(seed, &Steady { minutes: 40.0, rate: 45.0, service, per_pod: 40, wait_target: 5.0 });
    for queue in &mut load.queues {
        queue.total = 240;
    }
    load
}

fn strict(seed: u64) -> Load {
    let service = Service::Exponential(0.6);
    steady(seed, &Steady { minutes: 40.0, rate: 30.0, service, per_pod: 5, wait_target: 1.0 })
}

fn patient(seed: u64) -> Load {
    let service = Service::Exponential(3.0);
    steady(seed, &Steady { minutes: 60.0, rate: 10.0, service, per_pod: 10, wait_target: 30.0 })
}

fn single(seed: u64) -> Load {
    let service = Service::Exact(2.0);
    steady(seed, &Steady { minutes: 45.0, rate: 8.0, service, per_pod: 1, wait_target: 5.0 })
}

fn trickle(seed: u64) -> Load {
    let service = Service::Exponential(2.0);
    steady(seed, &Steady { minutes: 60.0, rate: 0.05, service, per_pod: 10, wait_target: 5.0 })
}
