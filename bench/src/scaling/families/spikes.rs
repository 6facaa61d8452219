//! Bursts above a load that never ends.

use rowlock_simulation::{Load, PodStart, QueueLoad};

use super::bursts::whole;
use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, load, one_queue, queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("flash", Kind::Changing, "a crowd: 25 times the load within 20 s, then less and less", flash),
    Family::new("switching", Kind::Changing, "a rate that jumps between three values (MMPP)", switching),
    Family::new("steps", Kind::Changing, "another constant rate every eight minutes", steps),
    Family::new("warm-bursts", Kind::Changing, "bursts for a queue that keeps 20 workers", warm_bursts),
    Family::new("bursty-start-1s", Kind::Changing, "busy minutes, pods that start in a second", start_1s),
    Family::new("bursty-start-10s", Kind::Changing, "busy minutes, pods that start in 10 s", start_10s),
    Family::new("bursty-start-30s", Kind::Changing, "busy minutes, pods that start in 30 s", start_30s),
    Family::new("bursty-start-90s", Kind::Changing, "busy minutes, pods that start in 90 s", start_90s),
];

fn flash(seed: u64) -> Load {
    /// How long the rate rises and stays, and by what time it falls to a third, in seconds.
    const RISE: f64 = 20.0;
    const STAY: f64 = 300.0;
    const FALL: f64 = 180.0;
    let mut draw = Draw::new(seed);
    let (begin, base) = (draw.between(8.0, 14.0) * MINUTE, draw.about(3.0));
    let peak = 25.0 * base;
    let rate = |at: f64| match at - begin {
        since if since < 0.0 => base,
        since if since < RISE => base + (peak - base) * since / RISE,
        since if since < RISE + STAY => peak,
        since => base + (peak - base) * (-(since - RISE - STAY) / FALL).exp(),
    };
    let arrivals = draw.arrivals(0.0, 40.0 * MINUTE, peak, rate);
    one_queue(40.0, draw.tasks(&arrivals, Service::Exponential(0.7)))
}

fn switching(seed: u64) -> Load {
    const RATES: [f64; 3] = [2.0, 15.0, 55.0];
    let mut draw = Draw::new(seed);
    let (mut at, mut state, mut tasks) = (0.0, 0, Vec::new());
    while at < 60.0 * MINUTE {
        let until = (at + draw.exponential(3.0 * MINUTE)).min(60.0 * MINUTE);
        tasks.extend(draw.steady(at, until, RATES[state], Service::Exponential(1.0)));
        state = (state + if draw.count(0, 1) == 0 { 1 } else { 2 }) % RATES.len();
        at = until;
    }
    one_queue(60.0, tasks)
}

fn steps(seed: u64) -> Load {
    const RATES: [f64; 6] = [10.0, 40.0, 20.0, 65.0, 5.0, 30.0];
    let mut draw = Draw::new(seed);
    let (mut at, mut tasks) = (0.0, Vec::new());
    for rate in RATES {
        let rate = draw.about(rate);
        tasks.extend(draw.steady(at, at + 8.0 * MINUTE, rate, Service::Exponential(1.0)));
        at += 8.0 * MINUTE;
    }
    one_queue(48.0, tasks)
}

fn warm_bursts(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let rate = draw.about(4.0);
    let mut tasks = draw.steady(0.0, 48.0 * MINUTE, rate, Service::Exponential(1.0));
    for at in draw.every(6.0 * MINUTE, 3.0 * MINUTE, 48.0 * MINUTE) {
        let count = draw.about(600.0);
        tasks.extend(draw.bulk(at, whole(count), Service::Exponential(1.0)));
    }
    load(48.0, vec![QueueLoad { min: 20, ..queue("orders", tasks) }])
}

/// A base of 5/s, and about every six minutes a minute of 55/s.
fn bursty(seed: u64, start: f64) -> Load {
    let mut draw = Draw::new(seed);
    let (base, more) = (draw.about(5.0), draw.about(50.0));
    let mut tasks = draw.steady(0.0, 48.0 * MINUTE, base, Service::Exponential(1.0));
    for at in draw.every(6.0 * MINUTE, 3.0 * MINUTE, 48.0 * MINUTE) {
        let until = at + draw.between(40.0, 90.0);
        tasks.extend(draw.steady(at, until, more, Service::Exponential(1.0)));
    }
    let pod_start = PodStart { least: 0.8 * start, most: 1.2 * start };
    Load { pod_start, ..one_queue(48.0, tasks) }
}

fn start_1s(seed: u64) -> Load {
    bursty(seed, 1.0)
}

fn start_10s(seed: u64) -> Load {
    bursty(seed, 10.0)
}

fn start_30s(seed: u64) -> Load {
    bursty(seed, 30.0)
}

fn start_90s(seed: u64) -> Load {
    bursty(seed, 90.0)
}
