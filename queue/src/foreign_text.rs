//! Text from other programs. It may be long, and in a database without an encoding it may be any bytes.

/// The longest text of a server that is used, in bytes. Such a text ends up in logs and conditions.
const SERVER_TEXT_LONGEST: usize = 2000;

/// A server's text, cut to [`SERVER_TEXT_LONGEST`].
pub(crate) fn shorten(text: &str) -> String {
    if text.len() <= SERVER_TEXT_LONGEST {
        return text.to_owned();
    }
    let end = (0..=SERVER_TEXT_LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// A text, and why a part of it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    /// The text, with a replacement character for each part that is not UTF-8.
    pub(crate) text: String,
    /// What is wrong, as the end of a sentence.
    pub(crate) fault: Option<String>,
}

/// Reads the bytes of a text. Invalid bytes do not fail the row that holds them.
pub(crate) fn read(bytes: Vec<u8>) -> Read {
    String::from_utf8(bytes).map_or_else(
        |error| {
            let at = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            let wrong = bytes.get(at).copied().unwrap_or_default();
            let fault = format!("is not UTF-8: byte {at} of it is 0x{wrong:02x}");
            Read { text: String::from_utf8_lossy(&bytes).into_owned(), fault: Some(fault) }
        },
        |text| Read { text, fault: None },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_utf8_names_the_first_wrong_byte() {
        assert_eq!(read("é".into()), Read { text: "é".into(), fault: None });
        let read = read(b"caf\xe9!".to_vec());
        assert_eq!(read.text, "caf\u{fffd}!");
        assert_eq!(read.fault.unwrap(), "is not UTF-8: byte 3 of it is 0xe9");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(shorten("short"), "short");
        let long = format!("a{}", "é".repeat(SERVER_TEXT_LONGEST));
        let cut = shorten(&long);
        assert!(cut.len() <= SERVER_TEXT_LONGEST + '…'.len_utf8() && cut.ends_with("é…"), "{cut}");
    }
}
