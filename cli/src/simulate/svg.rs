//! The picture: a panel per measure and a line per autoscaler.

use super::curve::Measure;
use super::report::{Replayed, rounded};
use rowlock_simulation::{Course, picture as draw};

/// The picture as text. The title may contain text from outside.
pub(super) fn picture(title: &str, all: &[Replayed], seconds: f64) -> String {
    let courses: Vec<_> = all.iter().map(course).collect();
    draw(&crate::escape::word(title), &Measure::ALL.map(Measure::title), &courses, seconds)
}

fn course(one: &Replayed) -> Course {
    let (wait, hours) = (rounded(one.score.p95_wait), rounded(one.score.worker_hours));
    Course {
        law: one.law,
        name: one.law.name().to_owned(),
        note: format!("p95 {wait} s, {hours} h"),
        lines: Measure::ALL.map(|measure| one.curve.points(measure).to_vec()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::curve::Curve;
    use rowlock_simulation::{LawKind, Sample, Score};

    #[test]
    fn a_picture_has_a_curve_per_autoscaler_and_measure_and_no_control_characters() {
        let sample = Sample { available: 5, pods_asked: 1, ..Sample::default() };
        let one = |law| Replayed { law, score: Score::default(), curve: Curve::of(&[sample; 10], 4) };
        let svg = picture("a<script>&\u{1b}", &[one(LawKind::Rowlock), one(LawKind::Oracle)], 600.0);
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert!(svg.contains("a&lt;script&gt;&amp;\\u{1b}"), "{svg}");
    }
}
