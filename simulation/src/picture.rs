//! The picture of laws beside each other: a self-contained SVG with a panel per measure and a line per law.

use std::fmt::Write as _;

use crate::laws::LawKind;

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

/// The laws that fit beside each other in the legend.
const LEGENDS: f64 = 5.0;

/// A law's lines, one in each panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Decides the colour.
    pub law: LawKind,
    /// Its name in the legend.
    pub name: String,
    /// What the legend says below the name.
    pub note: String,
    /// The values in each panel, at equal distances from the begin to the end.
    pub lines: Vec<Vec<f64>>,
}

/// A picture with these panels, as text. The load lasts this many seconds.
#[must_use]
pub fn picture(title: &str, panels: &[&str], all: &[Course], seconds: f64) -> String {
    let count = f64::from(u32::try_from(panels.len()).unwrap_or(u32::MAX));
    let (width, height) = (LEFT + WIDTH + RIGHT, TOP + count * (HEIGHT + BETWEEN));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"13\">{0}</text>\n",
        escaped(title)
    );
    svg += &legend(all);
    let mut top = TOP;
    for (number, name) in panels.iter().enumerate() {
        svg += &panel(all, number, name, seconds, top);
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

fn legend(all: &[Course]) -> String {
    let mut text = String::new();
    let mut x = LEFT;
    for one in all {
        let (colour, _) = stroke(one.law);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"44\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{0}\" y=\"50\">{1}</text><text x=\"{0}\" y=\"66\" fill=\"#666666\">{2}</text>",
            x + 20.0,
            escaped(&one.name),
            escaped(&one.note),
        );
        x += WIDTH / LEGENDS;
    }
    text
}

fn panel(all: &[Course], number: usize, name: &str, seconds: f64, top: f64) -> String {
    let lines = all.iter().filter_map(|one| Some((one, one.lines.get(number)?)));
    let most = ceiling(lines.clone().flat_map(|(_, line)| line).copied().fold(0.0, f64::max));
    let mut text =
        format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n", top - 8.0, escaped(name));
    text += &axes(most, seconds, top);
    for (one, line) in lines {
        let (colour, width) = stroke(one.law);
        let points = polyline(line, most, top);
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{points}\">\
             <title>{}</title></polyline>",
            escaped(&one.name)
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

/// Text as XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Three digits or so.
#[must_use]
pub fn rounded(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Whole seconds as people write them, with the two largest units.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s")];
    let (mut rest, mut parts) = (seconds.round(), Vec::new());
    for (length, name) in units {
        let whole = (rest / length).floor();
        rest -= whole * length;
        if whole > 0.0 || !parts.is_empty() {
            parts.push((whole, name));
        }
    }
    let shown = parts.iter().take(2).filter(|(whole, _)| *whole > 0.0);
    let text = shown.map(|(whole, name)| format!("{whole:.0}{name}")).collect::<Vec<_>>().concat();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 0.3, 1.0, 7.0, 41.0, 1234.0].map(ceiling);
        for (end, wanted) in ends.iter().zip([1.0, 0.4, 1.0, 8.0, 60.0, 2000.0]) {
            assert!((end - wanted).abs() < 1e-9, "{ends:?}");
        }
    }

    #[test]
    fn a_picture_has_a_line_per_law_and_panel_and_no_foreign_markup() {
        let one = |law: LawKind| Course {
            law,
            name: law.name().to_owned(),
            note: "<b>".to_owned(),
            lines: vec![vec![0.0, 5.0], vec![1.0, 0.0]],
        };
        let all = [one(LawKind::Rowlock), one(LawKind::Oracle)];
        let svg = picture("a<script>&", &["backlog", "workers"], &all, 600.0);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(svg.contains("a&lt;script&gt;&amp;") && svg.contains("&lt;b&gt;"), "{svg}");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn durations_have_two_units() {
        let shown = [0.0, 59.6, 600.0, 3661.0, 90_061.0].map(duration);
        assert_eq!(shown, ["0s", "1m", "10m", "1h1m", "1d1h"]);
    }

    #[test]
    fn peaks_have_few_digits() {
        assert_eq!([0.0, 3.0, 3.123, 1234.5].map(rounded), ["0", "3", "3.1", "1234"]);
    }
}
