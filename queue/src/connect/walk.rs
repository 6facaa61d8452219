//! A server's stream of messages, looked at from header to header: sqlx makes room for whatever length a
//! message announces.

use super::{UrlTrust, fault::Fault};

/// Type and length.
pub(super) const HEADER: usize = 5;

/// The largest message that a server of our own may send. Beside 16 MiB for what is no payload (a notice, a
/// list), a row with one payload of `limits.payloadBytes` (at most 64 MiB), which may become three times as
/// long in UTF-8.
pub(super) const LARGEST: usize = (16 + 3 * 64) << 20;

/// The same for a tenant's, of which no payload is ever read. Several tenants' servers answer at a time, and
/// all of them within the operator's memory.
pub(super) const LARGEST_OF_TENANT: usize = 4 << 20;

/// All messages of one answer of a tenant's server: what is looked at there is a few rows for each queue.
const ANSWER_OF_TENANT: u64 = 8 << 20;

/// And its messages: each becomes a row of some hundred bytes here, however short it is.
const MESSAGES_OF_TENANT: u32 = 20_000;

/// All values of parameters that a server reports after the start, over the life of a connection; sqlx keeps
/// each.
const REPORTS: usize = 1 << 20;

/// Where in the stream we are.
#[derive(Debug)]
pub(super) struct Walk {
    /// Bytes of the current message that are still to come.
    left: usize,
    largest: usize,
    answer: Option<(u64, u32)>,
    answered: u64,
    messages: u32,
    reported: usize,
}

impl Walk {
    pub(super) fn new(trust: UrlTrust) -> Self {
        let (largest, answer) = match trust {
            UrlTrust::Own => (LARGEST, None),
            UrlTrust::Tenant => (LARGEST_OF_TENANT, Some((ANSWER_OF_TENANT, MESSAGES_OF_TENANT))),
        };
        Self { left: 0, largest, answer, answered: 0, messages: 0, reported: 0 }
    }

    /// How many of these bytes, which follow those it was told of before, may be passed on: all but a header
    /// that is cut short.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        loop {
            let step = self.left.min(bytes.len() - at);
            (at, self.left) = (at + step, self.left - step);
            let Some((kind, length)) = header(&bytes[at..]) else { return Ok(at) };
            if self.left > 0 {
                return Ok(at);
            }
            self.left = self.check(kind, length)?;
        }
    }

    /// Bytes of the message, its type included.
    pub(super) fn check(&mut self, kind: u8, length: u32) -> Result<usize, Fault> {
        let length = length_of(length, self.largest)?;
        self.answered += length as u64;
        self.messages = self.messages.saturating_add(1);
        if kind == b'S' {
            self.reported += length;
        }
        if self.reported > REPORTS {
            return Err(Fault::Protocol(format!(
                "it reports parameters without end, {} bytes of them",
                self.reported
            )));
        }
        match kind {
            // The answer is over; a ring that comes between two is nobody's answer.
            b'Z' => (self.answered, self.messages) = (0, 0),
            b'A' => {
                self.answered = self.answered.saturating_sub(length as u64);
                self.messages = self.messages.saturating_sub(1);
            }
            _ => (),
        }
        if self.answer.is_some_and(|(bytes, messages)| self.answered > bytes || self.messages > messages) {
            let said =
                format!("an answer of more than {} bytes in {} messages", self.answered, self.messages);
            return Err(Fault::Protocol(said));
        }
        Ok(length + 1)
    }
}

/// Type and announced length of the message that begins here.
pub(super) fn header(bytes: &[u8]) -> Option<(u8, u32)> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let [kind, length @ ..] = *header;
    Some((kind, u32::from_be_bytes(length)))
}

/// A length that counts itself, so four at least.
pub(super) fn length_of(announced: u32, largest: usize) -> Result<usize, Fault> {
    let length = usize::try_from(announced).unwrap_or(usize::MAX);
    if !(4..=largest).contains(&length) {
        return Err(Fault::Protocol(format!(
            "a message with a length of {announced} bytes; 4 to {largest} are taken"
        )));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: usize) -> Vec<u8> {
        let length = u32::try_from(body + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), &vec![0; body]].concat()
    }

    #[test]
    fn everything_is_passed_on_but_a_header_that_is_cut_short() {
        let stream = [message(b'T', 40), message(b'D', 0), message(b'Z', 1)].concat();
        for cut in 0..stream.len() {
            let mut walk = Walk::new(UrlTrust::Own);
            let passed = walk.advance(&stream[..cut]).unwrap();
            assert!(cut - passed < HEADER, "{cut}: {passed}");
            assert_eq!(walk.advance(&stream[passed..]).unwrap(), stream.len() - passed);
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for length in [0, 3, u32::MAX, 1 << 31] {
            let header = [&[b'D'][..], &u32::to_be_bytes(length)].concat();
            assert!(Walk::new(UrlTrust::Own).advance(&header).is_err(), "{length}");
        }
        let large = u32::try_from(LARGEST_OF_TENANT + 1).unwrap();
        let header = [&[b'D'][..], &large.to_be_bytes()].concat();
        assert!(Walk::new(UrlTrust::Tenant).advance(&header).is_err());
        assert!(Walk::new(UrlTrust::Own).advance(&header).is_ok());
    }

    #[test]
    fn a_tenants_answer_has_an_end() {
        let rows = |walk: &mut Walk| (0..9).try_for_each(|_| walk.advance(&message(b'D', 1 << 20)).map(drop));
        assert!(rows(&mut Walk::new(UrlTrust::Tenant)).is_err());
        assert!(rows(&mut Walk::new(UrlTrust::Own)).is_ok());
        let short: Vec<u8> = (0..=MESSAGES_OF_TENANT).flat_map(|_| message(b'D', 0)).collect();
        assert!(Walk::new(UrlTrust::Tenant).advance(&short).is_err());
        let mut walk = Walk::new(UrlTrust::Tenant);
        for _ in 0..100 {
            walk.advance(&message(b'D', 1 << 20)).unwrap();
            walk.advance(&message(b'Z', 1)).unwrap();
        }
    }
}
