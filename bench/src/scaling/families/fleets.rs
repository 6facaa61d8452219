//! Queues that share the connections of their database.

use rowlock_simulation::{Load, QueueLoad, Task};

use super::bursts::whole;
use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, load, queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("sixty-queues", Kind::Changing, "60 queues with a task each half minute, one busy", sixty),
    Family::new("five-hundred-queues", Kind::Changing, "500 queues of very different rates", five_hundred),
    Family::new(
        "thousand-queues",
        Kind::BurstsFromZero,
        "1,000 queues, a small burst in one of them",
        thousand,
    ),
    Family::new("two-thousand-queues", Kind::Changing, "2,000 queues, nearly all idle", two_thousand),
    Family::new("unequal-pair", Kind::Changing, "a large and a small queue, just enough pods", unequal_pair),
    Family::new("exchange", Kind::Changing, "one queue grows while another shrinks", exchange),
    Family::new("correlated", Kind::BurstsFromZero, "30 queues get bursts at the same time", correlated),
    Family::new("short-budget", Kind::Changing, "12 queues whose peaks exceed their pods", short_budget),
    Family::new("long-holder", Kind::Changing, "long tasks hold the pods that short ones need", long_holder),
];

/// A load whose queues may have `budget` pods together.
fn fleet(minutes: f64, budget: u32, queues: Vec<QueueLoad>) -> Load {
    Load { budget: Some(budget), ..load(minutes, queues) }
}

/// The names of that many queues, in their order.
fn names(count: u32) -> impl Iterator<Item = String> {
    (1..=count).map(|number| format!("queue-{number:04}"))
}

fn sixty(seed: u64) -> Load {
    const END: f64 = 40.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let rate = draw.about(20.0);
    let mut queues = vec![queue("orders", draw.steady(0.0, END, rate, Service::Exponential(1.0)))];
    for name in names(60) {
        let from = draw.between(0.0, 30.0);
        let times = draw.every(30.0, from, END);
        queues.push(queue(&name, draw.tasks(&times, Service::Exponential(1.0))));
    }
    fleet(40.0, 40, queues)
}

/// Queues whose rates follow Zipf's law, in a random order.
fn zipf(draw: &mut Draw, count: u32, minutes: f64, all: f64, exponent: f64) -> Vec<QueueLoad> {
    let mut weights: Vec<(f64, f64)> =
        (1..=count).map(|rank| (draw.between(0.0, 1.0), f64::from(rank).powf(-exponent))).collect();
    weights.sort_by(|one, other| one.0.total_cmp(&other.0));
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let rates = weights.into_iter().map(|(_, weight)| all * weight / sum);
    let service = Service::Exponential(1.0);
    names(count)
        .zip(rates)
        .map(|(name, rate)| queue(&name, draw.steady(0.0, minutes * MINUTE, rate, service)))
        .collect()
}

fn five_hundred(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let rate = draw.about(40.0);
    let queues = zipf(&mut draw, 500, 30.0, rate, 1.2);
    fleet(30.0, 80, queues.into_iter().map(|queue| QueueLoad { per_pod: 5, ..queue }).collect())
}

fn two_thousand(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let rate = draw.about(8.0);
    let queues = zipf(&mut draw, 2_000, 25.0, rate, 0.3);
    fleet(25.0, 80, queues)
}

fn thousand(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let mut tasks: Vec<Vec<Task>> = vec![Vec::new(); 1_000];
    for at in draw.every(5.0, 10.0, 28.0 * MINUTE) {
        let (which, count) = (draw.count(0, 999), draw.count(10, 100));
        let burst = draw.bulk(at, count, Service::Exponential(1.0));
        tasks[which as usize].extend(burst);
    }
    fleet(30.0, 80, names(1_000).zip(tasks).map(|(name, tasks)| queue(&name, tasks)).collect())
}

fn unequal_pair(seed: u64) -> Load {
    const END: f64 = 45.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let (large, small) = (draw.between(45.0, 52.0), draw.about(2.0));
    let queues = vec![
        queue("large", draw.steady(0.0, END, large, Service::Exponential(1.0))),
        queue("small", draw.steady(0.0, END, small, Service::Exponential(0.5))),
    ];
    fleet(45.0, 8, queues)
}

fn exchange(seed: u64) -> Load {
    const END: f64 = 60.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let (most, service) = (draw.between(65.0, 75.0), Service::Exponential(1.0));
    let growing = draw.arrivals(0.0, END, most, |at| most * at / END);
    let shrinking = draw.arrivals(0.0, END, most, |at| most * (1.0 - at / END));
    let queues = vec![
        queue("growing", draw.tasks(&growing, service)),
        queue("shrinking", draw.tasks(&shrinking, service)),
    ];
    fleet(60.0, 12, queues)
}

fn correlated(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let mut tasks: Vec<Vec<Task>> = vec![Vec::new(); 30];
    for at in draw.every(8.0 * MINUTE, 4.0 * MINUTE, 48.0 * MINUTE) {
        for tasks in &mut tasks {
            let (late, count) = (draw.between(0.0, 10.0), draw.log_normal(150.0, 1.0).min(2_000.0));
            tasks.extend(draw.bulk(at + late, whole(count), Service::Exponential(1.5)));
        }
    }
    fleet(48.0, 50, names(30).zip(tasks).map(|(name, tasks)| queue(&name, tasks)).collect())
}

fn short_budget(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let mut queues = Vec::new();
    for name in names(12) {
        let base = draw.between(1.0, 4.0);
        let mut tasks = draw.steady(0.0, 45.0 * MINUTE, base, Service::Exponential(1.0));
        let mut at = draw.exponential(8.0 * MINUTE);
        while at < 42.0 * MINUTE {
            let until = at + draw.between(60.0, 180.0);
            tasks.extend(draw.steady(at, until, 25.0, Service::Exponential(1.0)));
            at = until + draw.exponential(8.0 * MINUTE);
        }
        queues.push(queue(&name, tasks));
    }
    fleet(45.0, 20, queues)
}

fn long_holder(seed: u64) -> Load {
    const END: f64 = 45.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let rate = draw.about(6.0);
    let mut long = Vec::new();
    for at in draw.every(12.0 * MINUTE, 3.0 * MINUTE, 40.0 * MINUTE) {
        let count = draw.about(250.0);
        long.extend(draw.bulk(at, whole(count), Service::LogNormal { mean: 60.0, sigma: 0.5 }));
    }
    let short = draw.steady(4.0 * MINUTE, END, rate, Service::Exponential(0.5));
    fleet(45.0, 10, vec![queue("long", long), queue("short", short)])
}
