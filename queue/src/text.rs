//! Text of others, which need not be text: a database without an encoding keeps any bytes.
//! Read as bytes, so that what cannot be read keeps nobody from the rest.

/// A value, or why it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    /// With a replacement character for each part that is no UTF-8.
    pub(crate) text: String,
    /// What is wrong, for people.
    pub(crate) fault: Option<String>,
}

/// Reads the bytes of a text.
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
    fn what_cannot_be_read_says_where() {
        assert_eq!(read("é".into()), Read { text: "é".into(), fault: None });
        let read = read(b"caf\xe9!".to_vec());
        assert_eq!(read.text, "caf\u{fffd}!");
        assert_eq!(read.fault.unwrap(), "is not UTF-8: byte 3 of it is 0xe9");
    }
}
