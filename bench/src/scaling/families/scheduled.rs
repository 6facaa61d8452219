//! Tasks at times that are known before.

use rowlock_simulation::{Load, Task};

use super::bursts::whole;
use super::draw::{Draw, Service};
use super::{Family, Kind, MINUTE, one_queue};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("bulk-at-hour", Kind::BurstsFromZero, "20,000 at 0:10 that are due at 1:00", bulk_at_hour),
    Family::new("reminders", Kind::Changing, "every task is due 5 to 20 minutes later", reminders),
    Family::new("cron", Kind::BurstsFromZero, "jobs at each full minute, more at each tenth", cron),
    Family::new("one-per-5min", Kind::BurstsFromZero, "a task every five minutes", one_per_5min),
];

fn bulk_at_hour(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let count = draw.about(20_000.0);
    let mut tasks = draw.bulk(10.0 * MINUTE, whole(count), Service::Exponential(0.06));
    for task in &mut tasks {
        task.delay = 50.0 * MINUTE;
    }
    one_queue(80.0, tasks)
}

fn reminders(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let rate = draw.about(18.0);
    let mut tasks = draw.steady(0.0, 48.0 * MINUTE, rate, Service::Exponential(1.0));
    for task in &mut tasks {
        task.delay = draw.between(5.0, 20.0) * MINUTE;
    }
    one_queue(70.0, tasks)
}

fn cron(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let (small, large) = (draw.about(90.0), draw.about(600.0));
    let mut tasks: Vec<Task> = Vec::new();
    for minute in 1..45_u32 {
        let count = if minute % 10 == 0 { large } else { small };
        tasks.extend(draw.bulk(f64::from(minute) * MINUTE, whole(count), Service::Exponential(1.5)));
    }
    one_queue(46.0, tasks)
}

fn one_per_5min(seed: u64) -> Load {
    let mut draw = Draw::new(seed);
    let times = draw.every(5.0 * MINUTE, 2.0 * MINUTE, 90.0 * MINUTE);
    one_queue(90.0, draw.tasks(&times, Service::Exponential(4.0)))
}
