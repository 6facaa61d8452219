//! The picture: a self-contained SVG with a panel per measure and a curve per law.

use super::curve::Measure;
use super::report::{Replayed, duration, rounded};
use rowlock_simulation::LawKind;
use std::fmt::Write as _;

/// Pixels of a panel, and what is beside it.
const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 90.0;
const BETWEEN: f64 = 60.0;

/// Parts of the time axis.
const TICKS: u32 = 6;

/// Parts of the axis of values.
const LINES: u32 = 4;

/// The picture as text.
pub(super) fn picture(title: &str, all: &[Replayed], seconds: f64) -> String {
    let (width, height) = (LEFT + WIDTH + RIGHT, TOP + 3.0 * (HEIGHT + BETWEEN));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"13\">{0}</text>\n",
        escaped(title)
    );
    svg += &legend(all);
    let mut top = TOP;
    for measure in Measure::ALL {
        svg += &panel(all, measure, seconds, top);
        top += HEIGHT + BETWEEN;
    }
    svg + "</svg>\n"
}

/// The colour of a law, which people who see few colours can tell apart (Okabe and Ito), and its width.
const fn stroke(law: LawKind) -> (&'static str, &'static str) {
    match law {
        LawKind::Rowlock => ("#0072b2", "2.5"),
        LawKind::KedaDefault => ("#d55e00", "1.2"),
        LawKind::KedaTuned => ("#e69f00", "1.2"),
        LawKind::Knative => ("#009e73", "1.2"),
        LawKind::Oracle => ("#000000", "1"),
        LawKind::Fixed => ("#999999", "1"),
    }
}

fn legend(all: &[Replayed]) -> String {
    let mut text = String::new();
    let mut x = LEFT;
    for one in all {
        let (colour, _) = stroke(one.law);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"44\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"50\">{}</text><text x=\"{}\" y=\"66\" fill=\"#666666\">p95 {} s, {} h</text>",
            x + 20.0,
            one.law.name(),
            x + 20.0,
            rounded(one.score.p95_wait),
            rounded(one.score.worker_hours),
        );
        x += WIDTH / 5.0;
    }
    text
}

fn panel(all: &[Replayed], measure: Measure, seconds: f64, top: f64) -> String {
    let most = ceiling(all.iter().map(|one| one.curve.highest(measure)).fold(0.0, f64::max));
    let mut text =
        format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n", top - 8.0, measure.title());
    text += &axes(most, seconds, top);
    for one in all {
        let (colour, width) = stroke(one.law);
        let points = polyline(one.curve.points(measure), most, top);
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{points}\">\
             <title>{}</title></polyline>",
            one.law.name()
        );
    }
    text
}

fn axes(most: f64, seconds: f64, top: f64) -> String {
    let mut text = String::new();
    for line in 0..=LINES {
        let share = f64::from(line) / f64::from(LINES);
        let y = top + HEIGHT * (1.0 - share);
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + WIDTH,
            LEFT - 8.0,
            y + 4.0,
            rounded(most * share),
        );
    }
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT + WIDTH * share,
            top + HEIGHT + 18.0,
            duration(seconds * share),
        );
    }
    text
}

fn polyline(points: &[f64], most: f64, top: f64) -> String {
    let step = WIDTH / f64::from(u32::try_from(points.len().max(2) - 1).unwrap_or(u32::MAX));
    let mut text = String::with_capacity(points.len() * 12);
    let mut x = LEFT;
    for value in points {
        let _ = write!(text, "{x:.1},{:.1} ", top + HEIGHT * (1.0 - value / most));
        x += step;
    }
    text.trim_end().to_owned()
}

/// The next 1, 2 or 5 times a power of ten, so that the axis has round numbers.
fn ceiling(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    let step = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].into_iter().find(|step| most <= step * power * (1.0 + 1e-9));
    step.unwrap_or(10.0) * power
}

/// Text from outside as XML.
fn escaped(text: &str) -> String {
    crate::escape::word(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::curve::Curve;
    use rowlock_simulation::{Sample, Score};

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 0.3, 1.0, 7.0, 41.0, 1234.0].map(ceiling);
        for (end, wanted) in ends.iter().zip([1.0, 0.4, 1.0, 8.0, 60.0, 2000.0]) {
            assert!((end - wanted).abs() < 1e-9, "{ends:?}");
        }
    }

    #[test]
    fn a_picture_has_a_curve_per_law_and_measure_and_no_foreign_markup() {
        let sample = Sample { available: 5, pods_asked: 1, ..Sample::default() };
        let one = |law| Replayed { law, score: Score::default(), curve: Curve::of(&[sample; 10], 4) };
        let svg = picture("a<script>&\u{1b}", &[one(LawKind::Rowlock), one(LawKind::Oracle)], 600.0);
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert!(svg.contains("a&lt;script&gt;&amp;\\u{1b}") && !svg.contains("NaN"), "{svg}");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    }
}
