//! Bursts while nothing else runs. All workers together do most of them within the wait target or a few of
//! it: what takes longer waits under every law.

use rowlock_simulation::{Load, PodStart, QueueLoad, Task};

use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, load, one_queue, queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("burst-50-long", Kind::BurstsFromZero, "50 tasks of two minutes, once", fifty_long),
    Family::new("burst-10k", Kind::BurstsFromZero, "10,000 tasks of a tenth of a second, once", ten_thousand),
    Family::new("burst-100k", Kind::BurstsFromZero, "100,000 tasks of 30 ms, once", hundred_thousand),
    Family::new("bursts-10min", Kind::BurstsFromZero, "2,000 tasks every ten minutes", ten_minutes),
    Family::new("bursts-1min", Kind::BurstsFromZero, "300 tasks every minute", one_minute),
    Family::new("bursts-long", Kind::BurstsFromZero, "80 tasks of a minute every quarter of an hour", long),
    Family::new("bursts-small", Kind::BurstsFromZero, "a few tasks of three seconds now and then", small),
    Family::new("bursts-cold", Kind::BurstsFromZero, "bursts with pods that start in 75 s", cold),
    Family::new("bursts-strict", Kind::BurstsFromZero, "bursts with a wait target of a second", strict),
    Family::new("bursts-patient", Kind::BurstsFromZero, "bursts that may wait half a minute", patient),
    Family::new("bursts-random", Kind::BurstsFromZero, "bursts of random sizes at random times", random),
    Family::new("on-off", Kind::BurstsFromZero, "two minutes of load, three of silence", on_off),
    Family::new("on-off-slow", Kind::BurstsFromZero, "eight minutes of load, seven of silence", on_off_slow),
    Family::new(
        "bimodal-on-off",
        Kind::BurstsFromZero,
        "on-off, a tenth of tasks takes 30 s",
        bimodal_on_off,
    ),
];

/// One burst after a few minutes.
fn once(seed: u64, count: f64, service: Service) -> Load {
    let mut draw = Draw::new(seed);
    let (at, count) = (draw.between(2.0, 5.0) * MINUTE, draw.about(count));
    let tasks = draw.bulk(at, whole(count), service);
    one_queue(20.0, tasks)
}

/// Bursts with about `gap` minutes between them.
fn repeated(seed: u64, minutes: f64, gap: f64, count: f64, service: Service) -> Load {
    let mut draw = Draw::new(seed);
    let count = draw.about(count);
    let times = draw.every(gap * MINUTE, gap / 2.0 * MINUTE, minutes * MINUTE);
    let tasks = times.into_iter().flat_map(|at| draw.bulk(at, whole(count), service)).collect();
    one_queue(minutes, tasks)
}

/// How load comes and goes. Times are minutes.
#[derive(Debug)]
struct OnOff {
    minutes: f64,
    on: f64,
    off: f64,
    rate: f64,
    service: Service,
}

fn alternating(seed: u64, shape: &OnOff) -> Load {
    let &OnOff { minutes, on, off, rate, service } = shape;
    let mut draw = Draw::new(seed);
    let rate = draw.about(rate);
    let mut tasks: Vec<Task> = Vec::new();
    let mut at = draw.between(0.5, 2.0) * MINUTE;
    while at < minutes * MINUTE {
        let until = (at + draw.about(on) * MINUTE).min(minutes * MINUTE);
        tasks.extend(draw.steady(at, until, rate, service));
        at = until + draw.about(off) * MINUTE;
    }
    one_queue(minutes, tasks)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small and positive")]
pub(super) fn whole(count: f64) -> u32 {
    count.round() as u32
}

fn fifty_long(seed: u64) -> Load {
    let mut load = once(seed, 50.0, Service::LogNormal { mean: 120.0, sigma: 0.3 });
    for queue in &mut load.queues {
        queue.per_pod = 5;
    }
    load
}

fn ten_thousand(seed: u64) -> Load {
    once(seed, 10_000.0, Service::Exponential(0.1))
}

fn hundred_thousand(seed: u64) -> Load {
    once(seed, 100_000.0, Service::Exponential(0.03))
}

fn ten_minutes(seed: u64) -> Load {
    repeated(seed, 90.0, 10.0, 2_000.0, Service::Exponential(0.4))
}

fn one_minute(seed: u64) -> Load {
    repeated(seed, 30.0, 1.0, 300.0, Service::Exponential(1.0))
}

fn long(seed: u64) -> Load {
    repeated(seed, 90.0, 15.0, 80.0, Service::LogNormal { mean: 60.0, sigma: 0.5 })
}

fn small(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let times = draw.every(3.0 * MINUTE, MINUTE, 45.0 * MINUTE);
    let mut tasks = Vec::new();
    for at in times {
        let count = draw.count(5, 20);
        tasks.extend(draw.bulk(at, count, Service::Exponential(3.0)));
    }
    load(45.0, vec![QueueLoad { per_pod: 5, ..queue("orders", tasks) }])
}

fn cold(seed: u64) -> Load {
    let pod_start = PodStart { least: 70.0, most: 80.0 };
    Load { pod_start, ..repeated(seed, 75.0, 15.0, 500.0, Service::Exponential(2.0)) }
}

fn strict(seed: u64) -> Load {
    let mut load = repeated(seed, 40.0, 5.0, 400.0, Service::Exponential(0.5));
    for queue in &mut load.queues {
        (queue.wait_target, queue.per_pod) = (1.0, 5);
    }
    load
}

fn patient(seed: u64) -> Load {
    let mut load = repeated(seed, 60.0, 10.0, 3_000.0, Service::Exponential(0.7));
    for queue in &mut load.queues {
        queue.wait_target = 30.0;
    }
    load
}

fn random(seed: u64) -> Load {
    /// What all workers do within half a minute.
    const LARGEST: f64 = 5_000.0;
    let mut draw = Draw::new(seed);
    let mut tasks = Vec::new();
    let mut at = draw.exponential(4.0 * MINUTE);
    while at < 88.0 * MINUTE {
        let count = draw.log_normal(800.0, 1.2).clamp(1.0, LARGEST);
        tasks.extend(draw.bulk(at, whole(count), Service::Exponential(0.6)));
        at += draw.exponential(4.0 * MINUTE);
    }
    one_queue(90.0, tasks)
}

fn on_off(seed: u64) -> Load {
    let service = Service::Exponential(1.0);
    alternating(seed, &OnOff { minutes: 60.0, on: 2.0, off: 3.0, rate: 50.0, service })
}

fn on_off_slow(seed: u64) -> Load {
    let service = Service::Exponential(5.0);
    alternating(seed, &OnOff { minutes: 75.0, on: 8.0, off: 7.0, rate: 8.0, service })
}

fn bimodal_on_off(seed: u64) -> Load {
    let service = Service::Mixed { short: 0.5, long: 30.0, share: 0.1 };
    alternating(seed, &OnOff { minutes: 48.0, on: 3.0, off: 3.0, rate: 14.0, service })
}
