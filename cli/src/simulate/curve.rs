//! The course of a replay in a few hundred points.

use rowlock_simulation::Sample;

/// The most points of a curve: more than the pixels of a picture tell nothing.
const MOST_POINTS: usize = 600;

/// What is drawn over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Tasks that could start.
    Backlog,
    /// Slots of pods that start or are ready.
    Slots,
    /// How long the oldest of those tasks has waited, in seconds.
    Wait,
}

impl Measure {
    pub(super) const ALL: [Self; 3] = [Self::Backlog, Self::Slots, Self::Wait];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Backlog => "backlog: tasks that wait",
            Self::Slots => "slots",
            Self::Wait => "wait of the oldest task, in seconds",
        }
    }
}

/// The highest values of equal parts of the load, in the order of [`Measure::ALL`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    points: [Vec<f64>; 3],
}

impl Curve {
    /// From a sample of each second.
    pub(super) fn of(samples: &[Sample], per_pod: u32) -> Self {
        let values = |measure: fn(&Sample, u32) -> f64| {
            let all: Vec<f64> = samples.iter().map(|sample| measure(sample, per_pod)).collect();
            highest(&all, MOST_POINTS)
        };
        Self {
            points: [
                values(|sample, _| float(sample.available)),
                values(|sample, per_pod| f64::from(sample.pods_asked) * f64::from(per_pod)),
                values(|sample, _| sample.wait_of_oldest),
            ],
        }
    }

    pub(super) fn points(&self, measure: Measure) -> &[f64] {
        &self.points[measure as usize]
    }

    pub(super) fn highest(&self, measure: Measure) -> f64 {
        self.points(measure).iter().copied().fold(0.0, f64::max)
    }
}

/// The highest of each of N equal parts; all values if there are fewer.
pub(super) fn highest(values: &[f64], parts: usize) -> Vec<f64> {
    let parts = parts.min(values.len());
    let part = |part: usize| {
        let (from, until) = (part * values.len() / parts, (part + 1) * values.len() / parts);
        values[from..until].iter().copied().fold(0.0, f64::max)
    };
    (0..parts).map(part).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_stays_in_fewer_points() {
        let values: Vec<f64> = (0..1000).map(|second| if second == 777 { 9.0 } else { 1.0 }).collect();
        let parts = highest(&values, 10);
        assert_eq!(parts, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 1.0, 1.0]);
        assert_eq!(highest(&[1.0, 2.0], 10), [1.0, 2.0]);
        assert!(highest(&[], 10).is_empty());
    }

    #[test]
    fn a_curve_counts_slots_and_not_pods() {
        let sample = Sample { available: 7, pods_asked: 3, wait_of_oldest: 1.5, ..Sample::default() };
        let curve = Curve::of(&[sample, Sample::default()], 4);
        let first: Vec<f64> = Measure::ALL.iter().map(|measure| curve.points(*measure)[0]).collect();
        assert_eq!(first, [7.0, 12.0, 1.5]);
        assert!((curve.highest(Measure::Slots) - 12.0).abs() < 1e-9);
    }
}
