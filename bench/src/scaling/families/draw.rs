//! The random numbers of a load.

use rowlock_simulation::Task;

/// The shortest time for which a handler runs, in seconds.
const SHORTEST: f64 = 0.001;

/// The longest, in seconds: a Pareto distribution has no bound of its own.
const LONGEST: f64 = 600.0;

/// The exponent of [`Service::Pareto`]. Its variance is infinite.
const PARETO: f64 = 1.5;

/// How long handlers take, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Service {
    /// The same for all tasks.
    Exact(f64),
    /// Exponentially distributed with this mean.
    Exponential(f64),
    /// The logarithm is normally distributed.
    LogNormal { mean: f64, sigma: f64 },
    /// A Pareto distribution of exponent 1.5 with this mean.
    Pareto(f64),
    /// Two kinds of tasks: `share` of them take about `long`, the others about `short`.
    Mixed { short: f64, long: f64, share: f64 },
}

/// A source of random numbers.
#[derive(Debug)]
pub(super) struct Draw(fastrand::Rng);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number between two bounds.
    pub(super) fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.0.f64()
    }

    /// A number up to a fifth below or a quarter above `value`, so that seeds differ in more than arrivals.
    pub(super) fn about(&mut self, value: f64) -> f64 {
        value * self.between(0.8, 1.25)
    }

    /// A whole number between two bounds.
    pub(super) fn count(&mut self, least: u32, most: u32) -> u32 {
        self.0.u32(least..=most)
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.0.f64()).ln()
    }

    /// Mean 0, standard deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.f64()).cos()
    }

    /// A number whose logarithm is normally distributed.
    pub(super) fn log_normal(&mut self, mean: f64, sigma: f64) -> f64 {
        mean * (sigma * self.normal() - sigma * sigma / 2.0).exp()
    }

    /// How long a handler takes for the next task.
    pub(super) fn service(&mut self, service: Service) -> f64 {
        let seconds = match service {
            Service::Exact(seconds) => seconds,
            Service::Exponential(mean) => self.exponential(mean),
            Service::LogNormal { mean, sigma } => self.log_normal(mean, sigma),
            Service::Pareto(mean) => {
                let least = mean * (PARETO - 1.0) / PARETO;
                least * (1.0 - self.0.f64()).powf(-1.0 / PARETO)
            }
            Service::Mixed { short, long, share } => {
                let mean = if self.0.f64() < share { long } else { short };
                self.log_normal(mean, 0.3)
            }
        };
        seconds.clamp(SHORTEST, LONGEST)
    }

    /// Poisson arrivals between two times, in their order. `rate` is per second, and never above `peak`.
    pub(super) fn arrivals(
        &mut self,
        from: f64,
        until: f64,
        peak: f64,
        rate: impl Fn(f64) -> f64,
    ) -> Vec<f64> {
        let mut arrivals = Vec::new();
        let mut at = from + self.exponential(1.0 / peak);
        while at < until {
            if self.0.f64() * peak < rate(at) {
                arrivals.push(at);
            }
            at += self.exponential(1.0 / peak);
        }
        arrivals
    }

    /// Tasks that are enqueued at these times and may start at once.
    pub(super) fn tasks(&mut self, arrivals: &[f64], service: Service) -> Vec<Task> {
        arrivals
            .iter()
            .map(|&enqueued| Task { enqueued, delay: 0.0, service: self.service(service) })
            .collect()
    }

    /// Tasks that arrive at a constant rate.
    pub(super) fn steady(&mut self, from: f64, until: f64, rate: f64, service: Service) -> Vec<Task> {
        let arrivals = self.arrivals(from, until, rate, |_| rate);
        self.tasks(&arrivals, service)
    }

    /// Tasks that are enqueued in one transaction.
    pub(super) fn bulk(&mut self, at: f64, count: u32, service: Service) -> Vec<Task> {
        (0..count).map(|_| Task { enqueued: at, delay: 0.0, service: self.service(service) }).collect()
    }

    /// Times between two bounds with a gap of `gap` seconds between them, each up to a tenth of that early or
    /// late.
    pub(super) fn every(&mut self, gap: f64, from: f64, until: f64) -> Vec<f64> {
        let mut times = Vec::new();
        let mut next = from;
        while next < until - gap / 2.0 {
            times.push((next + self.between(-0.1, 0.1) * gap).max(0.0));
            next += gap;
        }
        times
    }
}
