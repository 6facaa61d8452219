//! Writes log lines.

use std::io::{self, Stderr, Write, stderr};

/// Marks the second and later lines of an entry: they may come from a server or a handler and must not look
/// like an entry.
const CONTINUATION: &[u8] = b"\n  | ";

/// A log filter that leaves out what sqlx says about broken connections and slow acquires: our programs log
/// and count the operations that fail because of them. `rest`: the other directives, such as `info`.
#[must_use]
pub fn log_filter(rest: &str) -> String {
    format!("{rest},sqlx=error,sqlx_core=error")
}

/// Writes log entries to standard error, one entry per write.
#[derive(Debug)]
pub struct LogLines<W = Stderr>(W);

impl LogLines {
    /// A writer for the next entry.
    #[must_use]
    pub fn new() -> Self {
        Self(stderr())
    }
}

impl Default for LogLines {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write> Write for LogLines<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let (text, end) = match entry.strip_suffix(b"\n") {
            Some(text) => (text, &b"\n"[..]),
            None => (entry, &b""[..]),
        };
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let mut marked = lines.join(CONTINUATION);
        marked.extend_from_slice(end);
        self.0.write_all(&marked)?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entry: &str, expected: &str) {
        let mut lines = LogLines(Vec::new());
        lines.write_all(entry.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(lines.0).unwrap(), expected);
    }

    #[test]
    fn a_message_of_several_lines_is_one_entry() {
        check("WARN refused\n", "WARN refused\n");
        check("WARN refused\nINFO all is well\n\n", "WARN refused\n  | INFO all is well\n  | \n");
        check("", "");
    }
}
