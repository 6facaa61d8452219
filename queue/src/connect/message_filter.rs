//! A server's stream of messages, looked at from header to header: sqlx makes room for whatever length a
//! message announces.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    UrlTrust,
    fault::Fault,
    target::Target,
    turns::{Asked, Turns},
};

/// Type and length.
pub(super) const HEADER: usize = 5;

/// The largest message that a server of our own may send. Beside 16 MiB for what is no payload (an error, a
/// list), a row with one payload of `limits.payloadBytes` (at most 64 MiB), which may become three times as
/// long in UTF-8.
pub(super) const LARGEST: usize = (16 + 3 * 64) << 20;

/// The same for a tenant's, of which no payload is ever read: several hundred times the longest row that we
/// ask for. sqlx keeps room for the largest one that it met as long as the connection lives.
pub(super) const LARGEST_OF_TENANT: usize = 256 << 10;

/// All messages of one answer of a tenant's server: what is looked at there is a few rows for each queue.
const ANSWER_OF_TENANT: u64 = 8 << 20;

/// And its messages: each becomes a row of some hundred bytes here, however short it is.
const MESSAGES_OF_TENANT: u32 = 20_000;

/// Columns of a row; Postgres has no more. sqlx takes twelve bytes for each, and a NULL is four here.
const COLUMNS: u16 = 1664;

/// The same for a tenant's: twice what the widest of our looks has.
const COLUMNS_OF_TENANT: u16 = 64;

/// A notice or a notification, of which nobody reads more.
const NOTICE_LARGEST: usize = 64 << 10;

/// All values of parameters that a server reports after the start, over the life of a connection; sqlx keeps
/// each.
const REPORTS: usize = 1 << 20;

/// Where in the stream we are.
pub(super) struct MessageFilter {
    /// Bytes of the current message that are still to come.
    left: usize,
    /// Whether the current message is kept from sqlx.
    drops: bool,
    largest: usize,
    columns: u16,
    answer: Option<(u64, u32)>,
    /// Told of each question of ours. sqlx asks questions of its own, as many as a server gives it reason to,
    /// so the end of an answer is no sign of the next question.
    asked: Arc<Asked>,
    turns: Option<Turns>,
    answered: u64,
    messages: u32,
    reported: usize,
}

impl MessageFilter {
    pub(super) fn new(trust: UrlTrust) -> Self {
        let (largest, columns, answer) = match trust {
            UrlTrust::Own => (LARGEST, COLUMNS, None),
            UrlTrust::Tenant => {
                (LARGEST_OF_TENANT, COLUMNS_OF_TENANT, Some((ANSWER_OF_TENANT, MESSAGES_OF_TENANT)))
            }
        };
        let (left, drops, asked) = (0, false, Arc::default());
        Self {
            left,
            drops,
            largest,
            columns,
            answer,
            asked,
            turns: None,
            answered: 0,
            messages: 0,
            reported: 0,
        }
    }

    pub(super) fn of(target: &Target) -> Self {
        let filter = Self::new(target.trust);
        let turns = target.tenant.clone().map(|tenant| Turns::new(tenant, Arc::clone(&filter.asked)));
        Self { turns, ..filter }
    }

    /// Waits for leave, where the answer has become a long one. To be polled before it is passed on.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // The next question has no answer yet, however long the one before was.
        self.note_question();
        match &mut self.turns {
            Some(turns) => turns.poll_take(cx, self.answered, self.messages),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ready when a long answer takes too long. To be polled while nothing can be read.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.turns.as_mut().map_or(Poll::Pending, |turns| turns.poll_late(cx))
    }

    /// To be told of each question.
    pub(super) fn asked(&self) -> Arc<Asked> {
        Arc::clone(&self.asked)
    }

    /// Of these bytes, which follow those it was told of before, moves to the front what is to be passed on.
    /// Answers how many bytes that are, and how many it has seen: all but a header that is cut short.
    pub(super) fn filter(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut kept, mut at) = (0, 0);
        loop {
            let step = self.left.min(bytes.len() - at);
            if !self.drops {
                bytes.copy_within(at..at + step, kept);
                kept += step;
            }
            (at, self.left) = (at + step, self.left - step);
            if self.left > 0 {
                return Ok((kept, at));
            }
            let Some(head) = Head::of(&bytes[at..]) else { return Ok((kept, at)) };
            self.left = self.check(head)?;
            self.drops = head.is_notice();
        }
    }

    fn note_question(&mut self) {
        if self.asked.is_new() {
            (self.answered, self.messages) = (0, 0);
        }
    }

    /// Bytes of the message, its type included.
    pub(super) fn check(&mut self, head: Head) -> Result<usize, Fault> {
        let Head { kind, count, .. } = head;
        let largest = if head.is_notice() { NOTICE_LARGEST } else { self.largest };
        let length = head.length(largest)?;
        if matches!(kind, b'T' | b'D') && count > self.columns {
            return Err(Fault::Protocol(format!("a row of {count} columns; {} are taken", self.columns)));
        }
        self.note_question();
        if kind == b'S' {
            self.reported += length;
        }
        if self.reported > REPORTS {
            return Err(Fault::Protocol(format!(
                "it reports parameters without end, {} bytes of them",
                self.reported
            )));
        }
        // A notification that comes between two answers is nobody's.
        if kind != b'A' {
            self.answered += length as u64;
            self.messages = self.messages.saturating_add(1);
        }
        if self.answer.is_some_and(|(bytes, messages)| self.answered > bytes || self.messages > messages) {
            let said =
                format!("an answer of more than {} bytes in {} messages", self.answered, self.messages);
            return Err(Fault::Protocol(said));
        }
        Ok(length + 1)
    }
}

/// How a message begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: u8,
    announced: u32,
    /// Of columns or parameters, where the message has some.
    count: u16,
}

impl Head {
    /// Of the message that begins here; `None` if not enough of it is here.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let [kind, length @ ..] = *header;
        let announced = u32::from_be_bytes(length);
        // One that nobody takes is not waited for.
        let fits = shortest(kind) <= announced && usize::try_from(announced).is_ok_and(|n| n <= LARGEST);
        let counts = matches!(kind, b'T' | b'D' | b't') && fits;
        let count = if counts { u16::from_be_bytes(*bytes[HEADER..].first_chunk()?) } else { 0 };
        Some(Self { kind, announced, count })
    }

    /// What is said beside an answer, and not to sqlx: it logs notices as loudly as the server says they are.
    fn is_notice(self) -> bool {
        matches!(self.kind, b'N' | b'A')
    }

    /// Its length, which counts itself. sqlx panics at a message that is too short for its type.
    pub(super) fn length(self, largest: usize) -> Result<usize, Fault> {
        let Self { kind, announced, count } = self;
        let parameters = if kind == b't' { 4 * u32::from(count) } else { 0 };
        let shortest = shortest(kind) + parameters;
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced < shortest || length > largest {
            return Err(Fault::Protocol(format!(
                "a message of type 0x{kind:02x} with a length of {announced} bytes; {shortest} to {largest} are taken"
            )));
        }
        Ok(length)
    }
}

/// What a message of this type holds at least, its length included.
fn shortest(kind: u8) -> u32 {
    match kind {
        b'A' => 10,
        b'K' => 12,
        b'R' => 8,
        b'S' | b'T' | b'D' | b't' => 6,
        b'Z' | b'E' | b'N' | b'C' => 5,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: usize) -> Vec<u8> {
        let length = u32::try_from(body + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), &vec![0; body]].concat()
    }

    #[test]
    fn everything_is_passed_on_but_a_header_that_is_cut_short_and_what_is_said_beside() {
        let (rows, ready) = (message(b'T', 40), message(b'Z', 1));
        let aside = [message(b'N', 30), message(b'A', 9)].concat();
        let stream = [&rows[..], &aside, &message(b'D', 2), &aside, &ready].concat();
        let expected = [rows, message(b'D', 2), ready].concat();
        for cut in 0..stream.len() {
            let mut filter = MessageFilter::new(UrlTrust::Own);
            let mut first = stream[..cut].to_vec();
            let (kept, seen) = filter.filter(&mut first).unwrap();
            assert!(cut - seen < HEADER + 2, "{cut}: {seen}");
            let mut second = stream[seen..].to_vec();
            let (rest, all) = filter.filter(&mut second).unwrap();
            assert_eq!(all, stream.len() - seen);
            assert_eq!([&first[..kept], &second[..rest]].concat(), expected, "{cut}");
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let filter = |trust, kind: u8, length: u32| {
            let mut start = [&[kind][..], &length.to_be_bytes(), &[0, 0]].concat();
            MessageFilter::new(trust).filter(&mut start).map(drop)
        };
        for length in [0, 3, u32::MAX, 1 << 31] {
            assert!(filter(UrlTrust::Own, b'D', length).is_err(), "{length}");
            let mut header = [&[b'D'][..], &length.to_be_bytes()].concat();
            assert!(
                MessageFilter::new(UrlTrust::Own).filter(&mut header).is_err(),
                "{length}: before anything follows"
            );
        }
        let large = u32::try_from(LARGEST_OF_TENANT + 1).unwrap();
        assert!(filter(UrlTrust::Tenant, b'D', large).is_err());
        assert!(filter(UrlTrust::Own, b'D', large).is_ok());
        // Before this was mended, sqlx panicked at each of these.
        for (kind, length) in [(b'Z', 4), (b'K', 5), (b't', 4), (b'R', 4), (b'A', 6), (b'S', 4), (b'D', 5)] {
            assert!(filter(UrlTrust::Own, kind, length).is_err(), "{}", char::from(kind));
        }
        let mut parameters = [&[b't', 0, 0, 0, 6][..], &[0, 1]].concat();
        assert!(
            MessageFilter::new(UrlTrust::Own).filter(&mut parameters).is_err(),
            "one parameter in no bytes"
        );
        let long = u32::try_from(NOTICE_LARGEST + 1).unwrap();
        assert!(filter(UrlTrust::Own, b'N', long).is_err() && filter(UrlTrust::Own, b'A', long).is_err());
    }

    #[test]
    fn a_row_has_no_more_columns_than_postgres_has_nor_a_tenants_more_than_our_looks() {
        let row = |trust, count: u16| {
            let body = [&count.to_be_bytes()[..], &vec![0xff; 4 * usize::from(count)]].concat();
            let length = u32::try_from(body.len() + 4).unwrap();
            let mut row = [&[b'D'][..], &length.to_be_bytes(), &body].concat();
            MessageFilter::new(trust).filter(&mut row).is_ok()
        };
        assert!(row(UrlTrust::Own, COLUMNS) && !row(UrlTrust::Own, COLUMNS + 1));
        assert!(row(UrlTrust::Tenant, COLUMNS_OF_TENANT) && !row(UrlTrust::Tenant, COLUMNS_OF_TENANT + 1));
    }

    #[test]
    fn a_tenants_answer_has_an_end() {
        let large = LARGEST_OF_TENANT - 4;
        let rows = |filter: &mut MessageFilter| {
            (0..33).try_for_each(|_| filter.filter(&mut message(b'D', large)).map(drop))
        };
        assert!(rows(&mut MessageFilter::new(UrlTrust::Tenant)).is_err());
        assert!(rows(&mut MessageFilter::new(UrlTrust::Own)).is_ok());
        let mut short: Vec<u8> = (0..=MESSAGES_OF_TENANT).flat_map(|_| message(b'D', 2)).collect();
        assert!(MessageFilter::new(UrlTrust::Tenant).filter(&mut short).is_err());
        let mut filter = MessageFilter::new(UrlTrust::Tenant);
        for _ in 0..100 {
            filter.asked().begin(true);
            filter.filter(&mut message(b'D', large)).unwrap();
            filter.filter(&mut message(b'Z', 1)).unwrap();
        }
        // Before this was mended, each `Z` was the end of one answer, and a server has sqlx ask many questions.
        let many = (0..100).try_for_each(|_| {
            filter.filter(&mut message(b'D', large))?;
            filter.filter(&mut message(b'Z', 1)).map(drop)
        });
        assert!(many.is_err(), "one question of ours has one answer");
    }
}
