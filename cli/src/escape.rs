//! Escapes text from outside (a producer, a handler, a server, a file), so that a terminal shows control
//! characters instead of acting on them.

use std::borrow::Cow;
use std::fmt::Write;

/// Marks the second and later lines of a text from outside, so that none looks like a line of Rowlock.
const CONTINUATION: &str = "\n  | ";

/// Whether a terminal acts on the character instead of showing it: control characters (C0, DEL, C1), line
/// separators and marks that change the writing direction.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes control characters as `\u{…}`, and keeps line breaks and tabs.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |letter| !matches!(letter, '\n' | '\t'))
}

/// The same with line breaks and tabs escaped too, for a name or a cell of a table.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    escape(text, |_| true)
}

/// Escapes like [`lines`] and marks the second and later lines.
pub(crate) fn marked(text: &str) -> String {
    indent(text, CONTINUATION)
}

/// Escapes like [`lines`] and indents the second and later lines to the column of field values.
pub(crate) fn field(text: &str) -> String {
    indent(text, "\n          ")
}

fn indent(text: &str, before: &str) -> String {
    lines(&text.replace("\r\n", "\n")).replace('\n', before)
}

/// Escapes control characters in JSON text as JSON does. They occur only in strings, so the value stays the
/// same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    write_each(
        text,
        |letter| is_control(letter) && !matches!(letter, '\n' | '\t' | '\r'),
        |into, letter| {
            let _ = write!(into, "\\u{:04x}", u32::from(letter));
        },
    )
}

fn escape(text: &str, among: impl Fn(char) -> bool) -> Cow<'_, str> {
    write_each(
        text,
        |letter| is_control(letter) && among(letter),
        |into, letter| {
            let _ = write!(into, "\\u{{{:x}}}", u32::from(letter));
        },
    )
}

fn write_each(text: &str, chosen: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(&chosen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() * 2);
    for letter in text.chars() {
        if chosen(letter) { write(&mut shown, letter) } else { shown.push(letter) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let hostile = "a\u{1b}[2Jb\u{7f}\u{9b}31m\u{202e}c\u{2066}\r\u{0}größe 🙂";
        let shown = r"a\u{1b}[2Jb\u{7f}\u{9b}31m\u{202e}c\u{2066}\u{d}\u{0}größe 🙂";
        assert_eq!(lines(hostile), shown);
        assert_eq!(word("a\nb\tc"), r"a\u{a}b\u{9}c");
        assert!(matches!(lines("plain\n\tlines"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_second_line_is_marked_as_foreign_text() {
        assert_eq!(marked("no\r\n  hint: paste this"), "no\n  |   hint: paste this");
        assert_eq!(field("no\nqueue     other"), "no\n          queue     other");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let text = "{\"a\":\n\"\u{9b}\u{202e}\u{7f}é\"}";
        let shown = json(text);
        assert_eq!(shown, "{\"a\":\n\"\\u009b\\u202e\\u007fé\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(text));
    }
}
