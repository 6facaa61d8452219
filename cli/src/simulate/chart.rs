//! Charts of plain text: a row of bars per autoscaler, all on the same scale.

use super::curve::{Measure, highest};
use super::report::{Replayed, duration, rounded};
use std::fmt::Write as _;

/// From nothing to the highest value.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The narrowest chart in which anything can be seen.
const LEAST_WIDTH: usize = 20;

/// What a row has beside its bars: the name of the autoscaler, and its highest value.
const BESIDE: usize = 24;

/// A chart for each measure, in this many columns of a terminal.
pub(super) fn charts(all: &[Replayed], seconds: f64, columns: usize) -> String {
    let width = columns.saturating_sub(BESIDE).max(LEAST_WIDTH);
    let charts = Measure::ALL.map(|measure| chart(all, measure, width));
    let end = duration(seconds);
    let axis = format!("{:<12}0s{end:>rest$}", "", rest = width.saturating_sub(2));
    format!("{}\n{axis}", charts.join("\n\n"))
}

fn chart(all: &[Replayed], measure: Measure, width: usize) -> String {
    let most = all.iter().map(|one| one.curve.highest(measure)).fold(0.0, f64::max);
    let mut text = measure.title().to_owned();
    for one in all {
        let bars: String =
            stretched(one.curve.points(measure), width).iter().map(|value| bar(*value, most)).collect();
        let peak = rounded(one.curve.highest(measure));
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n{:<12}{bars}  {peak:>8}", one.law.name());
    }
    text
}

/// Exactly this many columns, also of a load that has fewer seconds.
fn stretched(points: &[f64], width: usize) -> Vec<f64> {
    if points.len() >= width {
        return highest(points, width);
    }
    let value = |column: usize| points.get(column * points.len() / width).copied().unwrap_or_default();
    (0..width).map(value).collect()
}

/// The lowest bar is for everything above nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 8")]
fn bar(value: f64, most: f64) -> char {
    let level = if most > 0.0 { (value / most * 8.0).ceil().clamp(0.0, 8.0) } else { 0.0 };
    BARS[level as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_value() {
        assert_eq!([0.0, 0.1, 50.0, 100.0].map(|value| bar(value, 100.0)), [' ', '▁', '▄', '█']);
        assert_eq!(bar(0.0, 0.0), ' ');
    }

    #[test]
    fn a_short_load_fills_the_width() {
        assert_eq!(stretched(&[1.0, 2.0], 4), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(stretched(&[], 2), [0.0, 0.0]);
    }
}
