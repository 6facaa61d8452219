//! Medians and percentiles.

use std::time::Duration;

/// The median; of an even number of samples, the higher one in the middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50)
}

pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_sample_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((percentile(&[3.0, 1.0, 2.0], 99) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
