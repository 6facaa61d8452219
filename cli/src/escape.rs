//! Text from outside (of a producer, a handler, a server, a file), so that a terminal shows it and does not
//! obey it.

use std::borrow::Cow;
use std::fmt::Write;

/// What stands before every further line of a text from outside, so that none looks like a line of ours.
const CONTINUATION: &str = "\n  | ";

/// Whether a terminal obeys it instead of showing it: controls (C0, DEL, C1), what separates lines, and what
/// turns the direction of writing.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Every line as it is, but for what a terminal would obey: that becomes `\u{…}`.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |letter| !matches!(letter, '\n' | '\t'))
}

/// The same in one line: a name, a cell of a table.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    escape(text, |_| true)
}

/// The same with further lines marked as such.
pub(crate) fn marked(text: &str) -> String {
    indent(text, CONTINUATION)
}

/// The same with further lines below the first, to the right of the names of fields.
pub(crate) fn field(text: &str) -> String {
    indent(text, "\n          ")
}

fn indent(text: &str, before: &str) -> String {
    lines(&text.replace("\r\n", "\n")).replace('\n', before)
}

/// JSON text with the same letters written as JSON's own escapes. They stand in strings only, so that it
/// means what it meant.
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
    fn what_a_terminal_obeys_is_shown() {
        let hostile = "a\u{1b}[2Jb\u{7f}\u{9b}31m\u{202e}c\u{2066}\r\u{0}größe 🙂";
        let shown = r"a\u{1b}[2Jb\u{7f}\u{9b}31m\u{202e}c\u{2066}\u{d}\u{0}größe 🙂";
        assert_eq!(lines(hostile), shown);
        assert_eq!(word("a\nb\tc"), r"a\u{a}b\u{9}c");
        assert!(matches!(lines("plain\n\tlines"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_further_line_does_not_look_like_one_of_ours() {
        assert_eq!(marked("no\r\n  hint: paste this"), "no\n  |   hint: paste this");
        assert_eq!(field("no\nqueue     other"), "no\n          queue     other");
    }

    #[test]
    fn json_means_the_same() {
        let text = "{\"a\":\n\"\u{9b}\u{202e}\u{7f}é\"}";
        let shown = json(text);
        assert_eq!(shown, "{\"a\":\n\"\\u009b\\u202e\\u007fé\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(text));
    }
}
