//! The load as a CSV file: when how many tasks come, and how long they take.
//!
//! Every wrong line is refused with its line and column. Nothing is guessed.

use crate::escape::word;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

/// Two million tasks of a line each are smaller.
const MOST_BYTES: u64 = 128 * 1024 * 1024;

/// Their replay takes minutes and half a gigabyte.
pub(super) const MOST_TASKS: u64 = 2_000_000;

/// A month. Each second is kept until its autoscaler is replayed.
const MOST_SECONDS: f64 = 31.0 * 86_400.0;

/// The longest mean of service times: a day.
const LONGEST_SERVICE: f64 = 86_400.0;

/// Ten times the mean. More comes from a mistake in the unit.
const MOST_VARIATION: f64 = 10.0;

/// As variable as in the usual model of queues (an exponential distribution).
pub(super) const USUAL_VARIATION: f64 = 1.0;

/// A file with the wrong format is wrong in each line; the first ones tell enough.
const MOST_ERRORS: usize = 10;

/// More of a wrong cell tells nothing.
const MOST_QUOTED: usize = 40;

const EXAMPLE: &str = "at,tasks,seconds\n0,20,0.5";

/// Tasks that come together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// The line of the file, from 1.
    pub(super) line: usize,
    /// When they are enqueued, in seconds after the first line.
    pub(super) at: f64,
    /// How many.
    pub(super) tasks: u64,
    /// How long the handler takes for one, on average, in seconds.
    pub(super) seconds: f64,
    /// How long after `at` they may start, in seconds.
    pub(super) delay: f64,
    /// The standard deviation of the service times, divided by their mean.
    pub(super) variation: f64,
}

/// Reads the file and checks it. The errors name the file, the line and the column.
pub(super) fn read(path: &Path) -> Result<Vec<Row>, Vec<String>> {
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| vec![format!("--load {shown}: {error}")];
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        let megabytes = MOST_BYTES / (1024 * 1024);
        return Err(vec![format!(
            "{shown}: is larger than {megabytes} MB, more than {MOST_TASKS} lines need; \
             write tasks of the same moment as one line"
        )]);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&shown, text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            Err(vec![format!("{shown}:{line}: is not UTF-8; save it as CSV in UTF-8")])
        }
    }
}

/// The rows of a text that have tasks.
fn parse(path: &str, text: &str) -> Result<Vec<Row>, Vec<String>> {
    let mut lines = (1..).zip(text.trim_start_matches('\u{feff}').lines()).filter(|(_, line)| is_data(line));
    let Some((line, header)) = lines.next() else {
        return Err(vec![format!("{path}: has no lines; write a header and lines, such as\n{EXAMPLE}")]);
    };
    let columns = Columns::read(header).map_err(|wrong| vec![wrong.at(path, line)])?;
    let (mut reader, mut rows, mut errors) =
        (Reader { columns, begin: None, last: 0.0, tasks: 0 }, vec![], vec![]);
    for (line, text) in lines {
        match reader.row(line, text) {
            // The others only say that time passes, and there may be any number of them.
            Ok(row) => rows.extend((row.tasks > 0).then_some(row)),
            Err(wrong) if errors.len() < MOST_ERRORS => errors.push(wrong.at(path, line)),
            Err(_) => {
                errors.push(format!("{path}: more lines are wrong; these are the first {MOST_ERRORS}"));
                break;
            }
        }
    }
    if errors.is_empty() && reader.tasks == 0 {
        errors.push(format!("{path}: has no tasks; add lines such as `0,20,0.5`"));
    }
    if errors.is_empty() { Ok(rows) } else { Err(errors) }
}

/// Empty lines and comments say nothing.
fn is_data(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// What is wrong at a column, counted from 1.
#[derive(Debug)]
struct Wrong {
    column: usize,
    text: String,
}

impl Wrong {
    fn new(column: usize, name: &str, problem: impl std::fmt::Display, hint: &str) -> Self {
        Self { column, text: format!("{name}: {problem}; {hint}") }
    }

    fn at(&self, path: &str, line: usize) -> String {
        format!("{path}:{line}:{}: {}", self.column, self.text)
    }
}

/// A cell and its column.
type Cell<'a> = (usize, &'a str);

fn cells(line: &str) -> Vec<Cell<'_>> {
    let mut column = 1;
    let cell = |text: &'_ str| {
        let blank = text.chars().count() - text.trim_start().chars().count();
        let at = column + blank;
        column += text.chars().count() + 1;
        at
    };
    let columns: Vec<usize> = line.split(',').map(cell).collect();
    columns.into_iter().zip(line.split(',').map(str::trim)).collect()
}

/// The names of the columns, and whether a file needs them.
const NAMES: [(&str, bool); 5] =
    [("at", true), ("tasks", true), ("seconds", true), ("delay", false), ("variation", false)];

/// Where each of [`NAMES`] is.
#[derive(Debug)]
struct Columns {
    places: [Option<usize>; 5],
    count: usize,
}

impl Columns {
    fn read(header: &str) -> Result<Self, Wrong> {
        let cells = cells(header);
        let mut places = [None; 5];
        for (place, (column, name)) in cells.iter().enumerate() {
            let hint = "write a header such as `at,tasks,seconds`; optional: `delay`, `variation`";
            let Some(known) = NAMES.iter().position(|(known, _)| known == name) else {
                return Err(Wrong::new(
                    *column,
                    "header",
                    format!("`{}` is not a column", quoted(name)),
                    hint,
                ));
            };
            if places[known].replace(place).is_some() {
                let problem = format!("`{name}` is there twice");
                return Err(Wrong::new(*column, "header", problem, "keep one of the two"));
            }
        }
        for ((name, needed), place) in NAMES.iter().zip(places) {
            if *needed && place.is_none() {
                let problem = format!("`{name}` is missing");
                return Err(Wrong::new(1, "header", problem, "write a header such as `at,tasks,seconds`"));
            }
        }
        Ok(Self { places, count: cells.len() })
    }

    /// The cell of a name, if the file has it and it is not empty.
    fn cell<'a>(&self, cells: &[Cell<'a>], name: usize) -> Option<Cell<'a>> {
        cells.get(self.places[name]?).copied()
    }
}

/// How the moments are written, with the first one.
#[derive(Debug, Clone, Copy)]
enum Begin {
    Seconds(f64),
    Time(Timestamp),
}

#[derive(Debug)]
struct Reader {
    columns: Columns,
    begin: Option<Begin>,
    /// The moment of the line before.
    last: f64,
    /// The tasks of all lines so far.
    tasks: u64,
}

impl Reader {
    fn row(&mut self, line: usize, text: &str) -> Result<Row, Wrong> {
        let cells = cells(text);
        if cells.len() != self.columns.count {
            let column = cells.last().map_or(1, |(column, _)| *column);
            let problem = format!("has {} values, the header has {}", cells.len(), self.columns.count);
            let hint = "separate values by commas, and write fractions with a point";
            return Err(Wrong::new(column, "line", problem, hint));
        }
        let at = self.at(self.columns.cell(&cells, 0).unwrap_or((1, "")))?;
        let tasks = self.tasks(self.columns.cell(&cells, 1).unwrap_or((1, "")))?;
        let number = |name: usize, usual: f64, least: f64, most: f64| {
            self.columns.cell(&cells, name).map_or(Ok(usual), |cell| number(NAMES[name].0, cell, least, most))
        };
        let seconds = number(2, 0.0, 0.001, LONGEST_SERVICE)?;
        let delay = number(3, 0.0, 0.0, MOST_SECONDS - at)?;
        let variation = number(4, USUAL_VARIATION, 0.0, MOST_VARIATION)?;
        self.last = at;
        self.tasks += tasks;
        Ok(Row { line, at, tasks, seconds, delay, variation })
    }

    /// Seconds since the first line.
    fn at(&mut self, (column, text): Cell<'_>) -> Result<f64, Wrong> {
        let wrong = |problem: String, hint: &str| Err(Wrong::new(column, "at", problem, hint));
        let shown = quoted(text);
        let moment = match (plain(text), text.parse::<Timestamp>()) {
            (Some(seconds), _) => Begin::Seconds(seconds),
            (None, Ok(time)) => Begin::Time(time),
            (None, Err(_)) => {
                let hint = "write seconds such as 60 or 0.5, or a time with its offset such as \
                            2026-03-01T08:00:00Z";
                return wrong(format!("`{shown}` is no moment"), hint);
            }
        };
        let at = match (*self.begin.get_or_insert(moment), moment) {
            (Begin::Seconds(begin), Begin::Seconds(now)) => now - begin,
            (Begin::Time(begin), Begin::Time(now)) => now.duration_since(begin).as_secs_f64(),
            _ => {
                return wrong(
                    format!("`{shown}` is not like the first line"),
                    "write all as seconds, or all as times",
                );
            }
        };
        if at < self.last {
            return wrong(format!("`{shown}` is before the line above"), "sort the lines by time");
        }
        if at > MOST_SECONDS {
            let problem = format!("`{shown}` is more than 31 days after the first line, the longest load");
            return wrong(problem, "cut the file into parts");
        }
        Ok(at)
    }

    fn tasks(&self, (column, text): Cell<'_>) -> Result<u64, Wrong> {
        let Some(tasks) =
            text.parse::<u64>().ok().filter(|_| text.starts_with(|first: char| first.is_ascii_digit()))
        else {
            let problem = format!("`{}` is no number of tasks", quoted(text));
            return Err(Wrong::new(column, "tasks", problem, "write a whole number such as 20"));
        };
        if self.tasks.saturating_add(tasks) > MOST_TASKS {
            let problem = format!("more than {MOST_TASKS} tasks up to here, whose replay takes minutes");
            return Err(Wrong::new(column, "tasks", problem, "cut the file into parts"));
        }
        Ok(tasks)
    }
}

/// The begin of a cell, as messages quote it.
fn quoted(text: &str) -> String {
    let begin: String = text.chars().take(MOST_QUOTED).collect();
    let rest = if begin.len() < text.len() { "…" } else { "" };
    format!("{}{rest}", word(&begin))
}

/// A number without sign, exponent or unit.
fn plain(text: &str) -> Option<f64> {
    let digits = |letter: char| letter.is_ascii_digit() || letter == '.';
    if text.chars().all(digits) { text.parse().ok().filter(|number: &f64| number.is_finite()) } else { None }
}

fn number(name: &str, (column, text): Cell<'_>, least: f64, most: f64) -> Result<f64, Wrong> {
    match plain(text) {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => {
            let mut hint = format!("write a number from {least} to {most:.0}");
            // Writing to a `String` cannot fail.
            let _ = write!(
                hint,
                "{}",
                if name == "variation" { ", such as 0.5" } else { ", in seconds, such as 0.5" }
            );
            Err(Wrong::new(column, name, format!("is `{}`", quoted(text)), &hint))
        }
    }
}

#[cfg(test)]
mod tests;
