//! Loads during which something fails.

use rowlock_simulation::{Fault, FaultKind, Load};

use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, one_queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("handler-gone", Kind::Changing, "every run fails at once for six minutes", handler_gone),
    Family::new("handler-flaky", Kind::Changing, "every run fails for half a minute, again and again", flaky),
    Family::new("dependency-hangs", Kind::Changing, "runs fail by a timeout of 30 s", dependency_hangs),
    Family::new("database-gone", Kind::Changing, "no database for three minutes", database_gone),
    Family::new("pods-do-not-start", Kind::Changing, "no pod starts while load rises", pods_do_not_start),
];

/// How long a run takes to fail if the handler refuses it, in seconds.
const AT_ONCE: f64 = 0.03;

/// A load of 45 minutes, and when its fault begins, in seconds.
fn constant(seed: u64, rate: f64, service: f64) -> (Load, f64) {
    let mut draw = Draw::new(seed);
    let (rate, begin) = (draw.about(rate), draw.between(12.0, 18.0) * MINUTE);
    let tasks = draw.steady(0.0, 45.0 * MINUTE, rate, Service::Exponential(service));
    (one_queue(45.0, tasks), begin)
}

fn with_fault(mut load: Load, from: f64, seconds: f64, kind: FaultKind) -> Load {
    for queue in &mut load.queues {
        queue.faults.push(Fault { from, until: from + seconds, kind });
    }
    load
}

fn handler_gone(seed: u64) -> Load {
    let (load, begin) = constant(seed, 15.0, 1.0);
    with_fault(load, begin, 6.0 * MINUTE, FaultKind::RunsFail { after: AT_ONCE })
}

fn flaky(seed: u64) -> Load {
    let (mut load, mut begin) = constant(seed, 20.0, 0.8);
    while begin < 40.0 * MINUTE {
        load = with_fault(load, begin, 30.0, FaultKind::RunsFail { after: AT_ONCE });
        begin += 5.0 * MINUTE;
    }
    load
}

fn dependency_hangs(seed: u64) -> Load {
    let (load, begin) = constant(seed, 8.0, 0.5);
    with_fault(load, begin, 4.0 * MINUTE, FaultKind::RunsFail { after: 30.0 })
}

/// Programs cannot enqueue either. They do so within a few seconds of its return.
fn database_gone(seed: u64) -> Load {
    let (mut load, begin) = constant(seed, 18.0, 1.0);
    let until = begin + 3.0 * MINUTE;
    let mut draw = Draw::new(seed);
    for queue in &mut load.queues {
        for task in queue.tasks.iter_mut().filter(|task| (begin..until).contains(&task.enqueued)) {
            task.enqueued = until + draw.between(0.0, 5.0);
        }
        queue.tasks.sort_by(|one, other| one.enqueued.total_cmp(&other.enqueued));
    }
    with_fault(load, begin, until - begin, FaultKind::DatabaseGone)
}

fn pods_do_not_start(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let (peak, begin) = (draw.about(45.0), draw.between(10.0, 14.0) * MINUTE);
    let rate = |at: f64| peak * (0.15 + 0.85 * ((at - begin) / (6.0 * MINUTE)).clamp(0.0, 1.0));
    let arrivals = draw.arrivals(0.0, 40.0 * MINUTE, peak, rate);
    let load = one_queue(40.0, draw.tasks(&arrivals, Service::Exponential(1.0)));
    with_fault(load, begin, 4.0 * MINUTE, FaultKind::PodsDoNotStart)
}
