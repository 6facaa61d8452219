//! Prometheus' text format, written in pieces. A page about thousands of queues has many megabytes: written
//! at once it takes that memory, and all else in its thread waits, such as the renewal of the leader's Lease.

use std::collections::VecDeque;
use std::fmt::{self, Write};

/// The length of a piece: some hundred series, which take less than a millisecond.
const PIECE: usize = 32 << 10;

/// Room for the series of one object, which are written before the length is looked at.
const OVERHANG: usize = 4 << 10;

/// The type of a metric.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// A metric of objects of one type, such as queues.
pub(crate) struct Family<T> {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// Writes the series of one object.
    pub(crate) write: fn(&T, &mut Series<'_>),
}

/// Takes the series of one metric. Without any, the page does not name the metric.
pub(crate) struct Series<'a> {
    text: &'a mut String,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    has_head: &'a mut bool,
}

impl Series<'_> {
    /// Adds a series. `labels`: ordered by name; one without a value is left out, which means the same.
    pub(crate) fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        if !std::mem::replace(self.has_head, true) {
            let Self { name, help, .. } = self;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            // A string takes everything.
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.text.push_str(self.name);
        let mut before = '{';
        for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(self.text, value);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn push_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// A page of metrics: an iterator over its pieces. It shows its objects as they were when it was made.
#[derive(Default)]
pub struct Page {
    parts: VecDeque<Box<dyn Part>>,
}

trait Part: Send {
    /// Writes until the piece is full. Returns whether everything has been written.
    fn write(&mut self, piece: &mut String) -> bool;
}

impl Page {
    /// Adds metrics of these objects. The series of a metric have to be together, so each metric of a page is
    /// added once.
    pub(crate) fn add<T: Send + 'static>(&mut self, families: &'static [Family<T>], objects: Vec<T>) {
        self.parts.push_back(Box::new(Metrics { families, objects, family: 0, object: 0, has_head: false }));
    }

    /// Adds metrics that are written already.
    pub fn add_text(&mut self, text: String) {
        self.parts.push_back(Box::new(text));
    }

    /// The whole page at once, for programs with few queues.
    #[must_use]
    pub fn text(self) -> String {
        self.collect()
    }
}

impl Iterator for Page {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut piece = String::with_capacity(PIECE + OVERHANG);
        while let Some(part) = self.parts.front_mut() {
            if !part.write(&mut piece) {
                break;
            }
            self.parts.pop_front();
        }
        (!piece.is_empty()).then_some(piece)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("parts", &self.parts.len()).finish()
    }
}

struct Metrics<T: 'static> {
    families: &'static [Family<T>],
    objects: Vec<T>,
    /// What is written next.
    family: usize,
    object: usize,
    /// Whether the head of this metric is written.
    has_head: bool,
}

impl<T: Send> Part for Metrics<T> {
    fn write(&mut self, piece: &mut String) -> bool {
        while let Some(Family { name, kind, help, write }) = self.families.get(self.family) {
            while let Some(object) = self.objects.get(self.object) {
                if PIECE <= piece.len() {
                    return false;
                }
                let has_head = &mut self.has_head;
                write(object, &mut Series { text: piece, name, kind: *kind, help, has_head });
                self.object += 1;
            }
            (self.family, self.object, self.has_head) = (self.family + 1, 0, false);
        }
        true
    }
}

impl Part for String {
    fn write(&mut self, piece: &mut String) -> bool {
        piece.push_str(self);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: &[Family<u32>] = &[
        Family {
            name: "even",
            kind: Kind::Gauge,
            help: "Half of it.",
            write: |number, to| {
                if number % 2 == 0 {
                    to.add(&[("none", ""), ("number", &number.to_string())], f64::from(*number) / 2.0);
                }
            },
        },
        Family { name: "never", kind: Kind::Gauge, help: "Nothing.", write: |_, _| () },
        Family {
            name: "all_total",
            kind: Kind::Counter,
            help: "Each.",
            write: |_, to| to.add(&[("text", "a\"b\\c\nd")], 1.0),
        },
    ];

    fn page(numbers: u32) -> Page {
        let mut page = Page::default();
        page.add(FAMILIES, (0..numbers).collect());
        page.add_text("more 1\n".to_owned());
        page
    }

    #[test]
    fn a_page_is_prometheus_text() {
        let expected = "# HELP even Half of it.\n# TYPE even gauge\neven{number=\"0\"} 0\n\
                        even{number=\"2\"} 1\n# HELP all_total Each.\n# TYPE all_total counter\n";
        let each = "all_total{text=\"a\\\"b\\\\c\\nd\"} 1\n";
        assert_eq!(page(3).text(), format!("{expected}{}more 1\n", each.repeat(3)));
        assert_eq!(page(0).text(), "more 1\n");
    }

    /// Before, a page about a thousand queues was one piece: nothing else ran for an eighth of a second.
    #[test]
    fn a_long_page_has_short_pieces_and_each_head_once() {
        let pieces: Vec<String> = page(10_000).collect();
        assert!(10 < pieces.len() && pieces.iter().all(|piece| piece.len() <= PIECE + OVERHANG));
        let text = pieces.concat();
        assert_eq!(text, page(10_000).text());
        for (family, count) in [("even", 5000), ("all_total", 10_000)] {
            let lines = |start: String| text.lines().filter(|line| line.starts_with(&start)).count();
            assert_eq!((lines(format!("# TYPE {family} ")), lines(format!("{family}{{"))), (1, count));
        }
    }
}
