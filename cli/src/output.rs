//! The only place that prints: results on standard output, everything else on standard error.

use crate::args::Format;
use crate::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

/// How often progress is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Clears the screen and goes to its upper left corner, in any terminal of today.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { json: format == Format::Json }
    }

    /// A result: the text for people, the value for programs.
    pub(crate) fn result(self, text: impl FnOnce() -> String, value: &Value) {
        if self.json { self.write(&value.to_string()) } else { self.write(&text()) }
    }

    /// For programs only.
    pub(crate) fn result_json(self, value: &Value) {
        if self.json {
            self.write(&value.to_string());
        }
    }

    /// For people only.
    pub(crate) fn say(self, text: &str) {
        if !self.json {
            self.write(text);
        }
    }

    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            let Failure { code, message, hint } = failure;
            warn(&serde_json::json!({"error": message, "hint": hint, "exit": code}).to_string());
            return;
        }
        warn(&format!("rowlock: {failure}"));
        if let Some(hint) = &failure.hint {
            warn(&format!("  hint: {hint}"));
        }
    }

    pub(crate) fn clear(self) {
        if !self.json && stdout().is_terminal() {
            let _ = stdout().write_all(CLEAR.as_bytes());
        }
    }

    /// Whether a progress bar is drawn, which log lines would tear.
    pub(crate) fn draws(self) -> bool {
        !self.json && stderr().is_terminal()
    }

    pub(crate) fn progress(self, total: u64) -> Progress {
        let bar = self.draws().then(|| ProgressBar::new(total));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        Progress { output: self, bar, total, written: None }
    }

    /// Whoever reads us may have gone (`rowlock tasks | head`): then nobody misses the rest.
    #[expect(clippy::unused_self, reason = "only who has an output may print")]
    fn write(self, line: &str) {
        let _ = writeln!(stdout(), "{line}");
    }
}

/// For what is not a result.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// A bar in a terminal, lines elsewhere.
pub(crate) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    total: u64,
    written: Option<(Instant, u64)>,
}

impl Progress {
    pub(crate) fn set(&mut self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(note.to_owned());
            bar.set_position(done);
            return;
        }
        let due = self.written.is_none_or(|(at, before)| before != done && at.elapsed() >= LINE_INTERVAL);
        if due || (done == self.total && self.written.is_none_or(|(_, before)| before != done)) {
            self.output.say(&format!("{done}/{} {note}", self.total));
            self.written = Some((Instant::now(), done));
        }
    }

    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => self.output.say(line),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            // Cleared: a finished bar would leave the cursor at its end, and the result in the same line.
            bar.finish_and_clear();
        }
    }
}
