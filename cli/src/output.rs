//! Prints results to standard output and everything else to standard error. No other module prints.

use crate::args::Format;
use crate::escape;
use crate::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often progress is printed without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a command that seldom writes checks whether standard output still has a reader.
const READER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Clears the terminal and moves the cursor to the upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { json: format == Format::Json }
    }

    /// Prints a result: the text for people, or the value as JSON for programs.
    pub(crate) fn result(self, text: impl FnOnce() -> String, value: &impl Serialize) -> Result<(), Failure> {
        if self.json { self.result_json(value) } else { write(&escape::lines(&text())) }
    }

    /// Prints a value with `--output json` only.
    pub(crate) fn result_json(self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))?;
        // A program gets the payload unchanged; for a terminal, control characters are escaped.
        write(&if stdout().is_terminal() { escape::json(&text) } else { text.into() })
    }

    /// Prints a line for people, not with `--output json`.
    pub(crate) fn say(self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { write(&escape::lines(text)) }
    }

    /// Waits until the reader of standard output has gone away. A command that seldom writes would not
    /// notice.
    pub(crate) async fn reader_gone(self) -> Failure {
        while !has_no_reader() {
            tokio::time::sleep(READER_CHECK_INTERVAL).await;
        }
        Failure::reader_gone()
    }

    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            let Failure { code, message, hint } = failure;
            let text = serde_json::json!({"error": message, "hint": hint, "exit": code}).to_string();
            warn(&escape::json(&text));
            return;
        }
        // The lines of a usage error are our own; other messages may contain a server's text.
        let message = &failure.message;
        let shown = if failure.is_usage() { message.into() } else { escape::marked(message) };
        warn(&format!("rowlock: {shown}"));
        if let Some(hint) = &failure.hint {
            warn(&format!("  hint: {}", escape::marked(hint)));
        }
    }

    pub(crate) fn clear(self) {
        if !self.json && stdout().is_terminal() {
            // An error shows at the next write.
            let _ = stdout().write_all(CLEAR.as_bytes());
        }
    }

    /// Whether a progress bar is drawn.
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
}

/// Writes a line to standard output. An error ends the command.
fn write(line: &str) -> Result<(), Failure> {
    let written = stdout().write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout().flush());
    written.map_err(|error| Failure::unwritten(&error))
}

/// Whether standard output is a pipe without a reader. (A closed terminal sends SIGHUP instead.)
fn has_no_reader() -> bool {
    let out = stdout();
    let mut polled = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let answered = poll(&mut polled, PollTimeout::ZERO).is_ok();
    let seen = polled[0].revents().unwrap_or(PollFlags::empty());
    answered && seen.contains(PollFlags::POLLERR) && !seen.contains(PollFlags::POLLHUP)
}

/// Writes a line to standard error. An error is ignored, since there is no place left to report it.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(stderr(), "{}", escape::lines(text));
}

/// A bar in a terminal, lines elsewhere.
pub(crate) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    total: u64,
    written: Option<(Instant, u64)>,
}

impl Progress {
    pub(crate) fn set(&mut self, done: u64, note: &str) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.set_message(escape::word(note).into_owned());
            bar.set_position(done);
            return Ok(());
        }
        let due = self.written.is_none_or(|(at, before)| before != done && at.elapsed() >= LINE_INTERVAL);
        if due || (done == self.total && self.written.is_none_or(|(_, before)| before != done)) {
            self.written = Some((Instant::now(), done));
            self.output.say(&format!("{done}/{} {note}", self.total))?;
        }
        Ok(())
    }

    pub(crate) fn say(&self, line: &str) -> Result<(), Failure> {
        match &self.bar {
            Some(bar) => bar.println(escape::word(line)),
            None => self.output.say(line)?,
        }
        Ok(())
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            // A finished bar would leave the cursor in its line, and the result would follow in the same
            // line.
            bar.finish_and_clear();
        }
    }
}
