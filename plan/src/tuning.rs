//! The constants of the scaling decision, for each choice between short waits and low cost.

use rowlock_crds::ScalingPreference;

/// What waits and cost depend on. `make bench-scaling` measures what each choice brings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tuning {
    /// The largest share of their time that workers are busy at a steady rate. The rate is an estimate, so it
    /// is below 1 however many workers there are.
    pub(crate) utilisation: f64,
    /// At a steady rate tasks wait for this share of the wait target at most. The rest is for what is not
    /// steady.
    pub(crate) steady_wait: f64,
    /// The share of the tasks that may wait longer than that.
    pub(crate) late_share: f64,
    /// New pods start the backlog within this share of the wait target, from when they are ready.
    pub(crate) backlog_wait: f64,
    /// Or within this share of the time that a pod takes to start, if that is longer: more pods would start
    /// for longer than they work.
    pub(crate) patience: f64,
    /// Workers for a backlog are kept for this many times as long as a pod takes to start.
    pub(crate) backlog_hold: f64,
    /// But not for less than this, in seconds: a few polls.
    pub(crate) least_backlog_hold: f64,
}

impl Tuning {
    pub(crate) const fn of(preference: ScalingPreference) -> Self {
        match preference {
            ScalingPreference::ShortWaits => Self {
                utilisation: 0.7,
                steady_wait: 0.05,
                late_share: 0.02,
                backlog_wait: 0.2,
                patience: 0.3,
                backlog_hold: 6.0,
                least_backlog_hold: 20.0,
            },
            ScalingPreference::Balanced => Self {
                utilisation: 0.93,
                steady_wait: 0.25,
                late_share: 0.05,
                backlog_wait: 0.4,
                patience: 0.5,
                backlog_hold: 2.0,
                least_backlog_hold: 6.0,
            },
            ScalingPreference::LowCost => Self {
                utilisation: 0.95,
                steady_wait: 0.5,
                late_share: 0.05,
                backlog_wait: 0.8,
                patience: 1.0,
                backlog_hold: 1.5,
                least_backlog_hold: 6.0,
            },
        }
    }
}
