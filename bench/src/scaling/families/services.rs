//! Constant rates of tasks whose service times are hard to learn.

use rowlock_simulation::Load;

use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, one_queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("log-normal", Kind::Steady, "service times from 0.1 to 10 s (sigma 1)", log_normal),
    Family::new("heavy-tail", Kind::Steady, "service times over four decades (sigma 2)", heavy_tail),
    Family::new("pareto", Kind::Steady, "service times without a variance", pareto),
    Family::new("bimodal", Kind::Steady, "one in twenty tasks takes a hundred times longer", bimodal),
    Family::new("slow-dependency", Kind::Changing, "handlers take five times longer for a while", slow),
];

fn constant(seed: u64, rate: f64, service: Service) -> Load {
    let mut draw = Draw::new(seed);
    let rate = draw.about(rate);
    one_queue(60.0, draw.steady(0.0, 60.0 * MINUTE, rate, service))
}

fn log_normal(seed: u64) -> Load {
    constant(seed, 20.0, Service::LogNormal { mean: 1.2, sigma: 1.0 })
}

fn heavy_tail(seed: u64) -> Load {
    constant(seed, 20.0, Service::LogNormal { mean: 1.2, sigma: 2.0 })
}

fn pareto(seed: u64) -> Load {
    constant(seed, 20.0, Service::Pareto(1.0))
}

fn bimodal(seed: u64) -> Load {
    constant(seed, 22.0, Service::Mixed { short: 0.25, long: 25.0, share: 0.05 })
}

fn slow(seed: u64) -> Load {
    /// How much longer handlers take, and for how long, in seconds.
    const FACTOR: f64 = 5.0;
    const LENGTH: f64 = 10.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let (rate, begin) = (draw.about(12.0), draw.between(12.0, 20.0) * MINUTE);
    let mut tasks = draw.steady(0.0, 45.0 * MINUTE, rate, Service::Exponential(0.8));
    for task in tasks.iter_mut().filter(|task| (begin..begin + LENGTH).contains(&task.enqueued)) {
        task.service *= FACTOR;
    }
    one_queue(45.0, tasks)
}
