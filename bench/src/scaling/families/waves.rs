//! Rates that change slowly.

use std::f64::consts::TAU;

use rowlock_simulation::{Load, PodStart, QueueLoad, Task};

use super::bursts::whole;
use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, load, one_queue, queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("wave", Kind::Changing, "a sine of half an hour, from nearly nothing to 70 workers", wave),
    Family::new("wave-hour", Kind::Changing, "a sine of an hour, tasks of four seconds", wave_hour),
    Family::new("wave-cold", Kind::Changing, "a sine of 40 minutes, pods that start in 75 s", wave_cold),
    Family::new("ramp", Kind::Changing, "rises for 40 minutes, then stops", ramp),
    Family::new("ramp-down", Kind::Changing, "begins at its highest and falls for 50 minutes", ramp_down),
    Family::new("drift", Kind::Changing, "both rate and service time double within 90 minutes", drift),
    Family::new("random-walk", Kind::Changing, "a rate that wanders", random_walk),
    Family::new("day", Kind::Changing, "the hours of a working day, in 80 minutes", day),
    Family::new("week", Kind::Changing, "a week in 84 minutes: days, noise, a job each midnight", week),
];

/// Shares of the peak by the hour of a day, with straight lines between.
const HOURS: [(f64, f64); 10] = [
    (0.0, 0.06),
    (5.0, 0.04),
    (8.0, 0.6),
    (10.0, 1.0),
    (12.5, 0.65),
    (14.5, 0.95),
    (17.0, 0.7),
    (19.0, 0.3),
    (22.0, 0.12),
    (24.0, 0.06),
];

fn at_hour(hour: f64) -> f64 {
    let line = HOURS.windows(2).find(|pair| hour < pair[1].0);
    line.map_or(HOURS[0].1, |pair| {
        let ((begin, from), (end, to)) = (pair[0], pair[1]);
        from + (to - from) * (hour - begin) / (end - begin)
    })
}

/// A sine between a twentieth of `peak` and `peak`, which begins anywhere. Periods are minutes.
fn sine(seed: u64, minutes: f64, period: f64, peak: f64, service: Service) -> Load {
    let mut draw = Draw::new(seed);
    let (peak, phase) = (draw.about(peak), draw.between(0.0, TAU));
    let rate = |at: f64| peak * (0.525 + 0.475 * (phase + TAU * at / (period * MINUTE)).sin());
    let arrivals = draw.arrivals(0.0, minutes * MINUTE, peak, rate);
    one_queue(minutes, draw.tasks(&arrivals, service))
}

fn wave(seed: u64) -> Load {
    sine(seed, 90.0, 30.0, 60.0, Service::Exponential(1.0))
}

fn wave_hour(seed: u64) -> Load {
    sine(seed, 90.0, 60.0, 14.0, Service::Exponential(4.0))
}

fn wave_cold(seed: u64) -> Load {
    let pod_start = PodStart { least: 70.0, most: 80.0 };
    Load { pod_start, ..sine(seed, 80.0, 40.0, 30.0, Service::Exponential(2.0)) }
}

fn ramp(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let (peak, end) = (draw.about(70.0), 42.0 * MINUTE);
    let arrivals = draw.arrivals(2.0 * MINUTE, end, peak, |at| peak * (at - 2.0 * MINUTE) / (40.0 * MINUTE));
    one_queue(50.0, draw.tasks(&arrivals, Service::Exponential(1.0)))
}

fn ramp_down(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let peak = draw.about(12.0);
    let arrivals = draw.arrivals(0.0, 50.0 * MINUTE, peak, |at| peak * (1.0 - at / (50.0 * MINUTE)));
    let tasks = draw.tasks(&arrivals, Service::Exponential(5.0));
    load(60.0, vec![QueueLoad { per_pod: 5, ..queue("orders", tasks) }])
}

fn drift(seed: u64) -> Load {
    const END: f64 = 90.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let most = draw.about(28.0);
    let arrivals = draw.arrivals(0.0, END, most, |at| most * (0.5 + 0.5 * at / END));
    let mut tasks = draw.tasks(&arrivals, Service::Exponential(1.0));
    for task in &mut tasks {
        task.service *= 1.0 + task.enqueued / END;
    }
    one_queue(90.0, tasks)
}

fn random_walk(seed: u64) -> Load {
    /// How often the rate takes a step, in seconds.
    const STEP: f64 = 10.0;
    let mut draw = Draw::new(seed);
    let (mut rate, mut at, mut tasks) = (draw.about(15.0), 0.0, Vec::new());
    while at < 80.0 * MINUTE {
        tasks.extend(draw.steady(at, at + STEP, rate, Service::Exponential(1.2)));
        rate = (rate * (0.1 * draw.normal()).exp()).clamp(2.0, 60.0);
        at += STEP;
    }
    one_queue(80.0, tasks)
}

fn day(seed: u64) -> Load {
    const LENGTH: f64 = 80.0 * MINUTE;
    let mut draw = Draw::new(seed);
    let (peak, begin) = (draw.about(45.0), draw.between(0.0, 24.0));
    let rate = |at: f64| peak * at_hour((begin + 24.0 * at / LENGTH) % 24.0);
    let arrivals = draw.arrivals(0.0, LENGTH, peak, rate);
    one_queue(80.0, draw.tasks(&arrivals, Service::LogNormal { mean: 1.0, sigma: 0.7 }))
}

fn week(seed: u64) -> Load {
    /// The length of a day, and how long a value of the noise holds, in seconds.
    const DAY: f64 = 12.0 * MINUTE;
    const STEP: f64 = 10.0;
    const DAYS: [f64; 7] = [0.9, 1.0, 1.0, 0.95, 0.85, 0.35, 0.3];
    const SERVICE: Service = Service::LogNormal { mean: 0.8, sigma: 0.8 };
    let mut draw = Draw::new(seed);
    let (peak, mut noise) = (draw.about(40.0), 0.0);
    let mut tasks: Vec<Task> = Vec::new();
    for (begin, size) in (0_u32..).map(|day| f64::from(day) * DAY).zip(DAYS) {
        let count = draw.about(800.0);
        tasks.extend(draw.bulk(begin, whole(count), SERVICE));
        let mut since = 0.0;
        while since < DAY {
            noise = 0.9 * noise + 0.12 * draw.normal();
            let rate = peak * size * at_hour(24.0 * since / DAY) * f64::exp(noise);
            tasks.extend(draw.steady(begin + since, begin + since + STEP, rate, SERVICE));
            since += STEP;
        }
    }
    one_queue(84.0, tasks)
}
