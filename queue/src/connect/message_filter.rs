//! Checks the header of each message of a server before sqlx gets it. sqlx would allocate whatever length a
//! message announces.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    answer_permits::{AnswerPermits, QueryState},
    fault::Fault,
    options::UrlTrust,
    target::Target,
};

/// The bytes of a header: type and length.
pub(super) const HEADER: usize = 5;

/// The largest message of a user's own server. It allows 16 MiB for anything but a payload (an error, a
/// list), plus a payload of at most 64 MiB (`limits.payloadBytes`), which may become three times as long in
/// UTF-8.
pub(super) const LARGEST: usize = (16 + 3 * 64) << 20;

/// The largest message of a tenant's server. No payload is ever read from such a server, and this is several
/// hundred times the longest row that we ask for. sqlx keeps the buffer of the largest message as long as the
/// connection lives.
pub(super) const TENANT_LARGEST: usize = 256 << 10;

/// The largest answer of a tenant's server, in bytes: we read a few rows for each queue.
const TENANT_ANSWER_BYTES: u64 = 8 << 20;

/// The same in messages: sqlx turns each into a row of at least a hundred bytes.
const TENANT_ANSWER_MESSAGES: u32 = 20_000;

/// The most columns of a row, as in Postgres. sqlx takes twelve bytes for each, and a NULL has only four in
/// the message.
const COLUMNS: u16 = 1664;

/// The same for a tenant's server: twice as many as the widest of our queries.
const TENANT_COLUMNS: u16 = 64;

/// The largest notice or notification.
const NOTICE_LARGEST: usize = 64 << 10;

/// The most bytes of parameter values (`ParameterStatus`) that a server may report after the start; sqlx
/// keeps every value.
const PARAMETER_BYTES: usize = 1 << 20;

/// The position in the stream, and what the current answer has used of its limits.
pub(super) struct MessageFilter {
    /// Bytes of the current message that are still to come.
    left: usize,
    /// Whether the current message is dropped. Then sqlx does not get it.
    dropping: bool,
    largest: usize,
    columns: u16,
    answer_limit: Option<(u64, u32)>,
    /// Signals that one of our queries begins. The end of an answer does not do so: a server can make sqlx
    /// send any number of queries of its own.
    query: Arc<QueryState>,
    permits: Option<AnswerPermits>,
    answer_bytes: u64,
    answer_messages: u32,
    reported_bytes: usize,
}

impl MessageFilter {
    pub(super) fn new(trust: UrlTrust) -> Self {
        let (largest, columns, answer_limit) = match trust {
            UrlTrust::Own => (LARGEST, COLUMNS, None),
            UrlTrust::Tenant => {
                (TENANT_LARGEST, TENANT_COLUMNS, Some((TENANT_ANSWER_BYTES, TENANT_ANSWER_MESSAGES)))
            }
        };
        let (left, dropping, query) = (0, false, Arc::default());
        Self {
            left,
            dropping,
            largest,
            columns,
            answer_limit,
            query,
            permits: None,
            answer_bytes: 0,
            answer_messages: 0,
            reported_bytes: 0,
        }
    }

    pub(super) fn of(target: &Target) -> Self {
        let filter = Self::new(target.trust);
        let permits =
            target.tenant.clone().map(|tenant| AnswerPermits::new(tenant, Arc::clone(&filter.query)));
        Self { permits, ..filter }
    }

    /// Waits for a permit if the answer has become a long one. Poll it before forwarding the answer.
    pub(super) fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // A new query has no answer yet, however long the previous one was.
        self.note_query();
        match &mut self.permits {
            Some(permits) => permits.poll_acquire(cx, self.answer_bytes, self.answer_messages),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ready when a long answer has taken too long. Poll it while there is nothing to read.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.permits.as_mut().map_or(Poll::Pending, |permits| permits.poll_overdue(cx))
    }

    /// Where the session announces each query.
    pub(super) fn query(&self) -> Arc<QueryState> {
        Arc::clone(&self.query)
    }

    /// Moves the bytes for sqlx to the front. Returns their number, and how many bytes were processed. Only
    /// an incomplete header is left unprocessed; the next call must begin with it.
    pub(super) fn filter(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut kept, mut at) = (0, 0);
        loop {
            let step = self.left.min(bytes.len() - at);
            if !self.dropping {
                bytes.copy_within(at..at + step, kept);
                kept += step;
            }
            (at, self.left) = (at + step, self.left - step);
            if self.left > 0 {
                return Ok((kept, at));
            }
            let Some(head) = Head::of(&bytes[at..]) else { return Ok((kept, at)) };
            self.left = self.check(head)?;
            self.dropping = head.is_notice();
        }
    }

    /// Counts from zero if a query began since the last call.
    fn note_query(&mut self) {
        if self.query.take_new() {
            (self.answer_bytes, self.answer_messages) = (0, 0);
        }
    }

    /// Checks a message by its header; returns its length, including the type.
    pub(super) fn check(&mut self, head: Head) -> Result<usize, Fault> {
        let Head { kind, count, .. } = head;
        let largest = if head.is_notice() { NOTICE_LARGEST } else { self.largest };
        let length = head.length(largest)?;
        if matches!(kind, b'T' | b'D') && count > self.columns {
            return Err(Fault::Protocol(format!("a row of {count} columns; the limit is {}", self.columns)));
        }
        self.note_query();
        if kind == b'S' {
            self.reported_bytes += length;
        }
        if self.reported_bytes > PARAMETER_BYTES {
            return Err(Fault::Protocol(format!(
                "the server reports {} bytes of parameters",
                self.reported_bytes
            )));
        }
        // A notification belongs to no answer.
        if kind != b'A' {
            self.answer_bytes += length as u64;
            self.answer_messages = self.answer_messages.saturating_add(1);
        }
        if self
            .answer_limit
            .is_some_and(|(bytes, messages)| self.answer_bytes > bytes || self.answer_messages > messages)
        {
            let detail = format!(
                "an answer of more than {} bytes in {} messages",
                self.answer_bytes, self.answer_messages
            );
            return Err(Fault::Protocol(detail));
        }
        Ok(length + 1)
    }
}

/// The header of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: u8,
    announced: u32,
    /// The number of columns or parameters, if the message has them.
    count: u16,
}

impl Head {
    /// The header of the message that begins here; `None` if more bytes are needed.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let [kind, length @ ..] = *header;
        let announced = u32::from_be_bytes(length);
        // A message that is refused anyway does not wait for more bytes.
        let fits = shortest(kind) <= announced && usize::try_from(announced).is_ok_and(|n| n <= LARGEST);
        let counts = matches!(kind, b'T' | b'D' | b't') && fits;
        let count = if counts { u16::from_be_bytes(*bytes[HEADER..].first_chunk()?) } else { 0 };
        Some(Self { kind, announced, count })
    }

    /// Notices and notifications are not part of an answer. sqlx does not get them: it would log a notice at
    /// the level that the server chooses.
    fn is_notice(self) -> bool {
        matches!(self.kind, b'N' | b'A')
    }

    /// The length, which includes the length field. sqlx panics at a message that is too short for its type.
    pub(super) fn length(self, largest: usize) -> Result<usize, Fault> {
        let Self { kind, announced, count } = self;
        let parameters = if kind == b't' { 4 * u32::from(count) } else { 0 };
        let shortest = shortest(kind) + parameters;
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced < shortest || length > largest {
            return Err(Fault::Protocol(format!(
                "a message of type 0x{kind:02x} with a length of {announced} bytes; the limits are \
                 {shortest} and {largest}"
            )));
        }
        Ok(length)
    }
}

/// The least length of a message of this type.
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
    fn everything_is_forwarded_except_incomplete_headers_notices_and_notifications() {
        let (rows, ready) = (message(b'T', 40), message(b'Z', 1));
        let notices = [message(b'N', 30), message(b'A', 9)].concat();
        let stream = [&rows[..], &notices, &message(b'D', 2), &notices, &ready].concat();
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
    fn impossible_lengths_are_refused() {
        let filter = |trust, kind: u8, length: u32| {
            let mut start = [&[kind][..], &length.to_be_bytes(), &[0, 0]].concat();
            MessageFilter::new(trust).filter(&mut start).map(drop)
        };
        for length in [0, 3, u32::MAX, 1 << 31] {
            assert!(filter(UrlTrust::Own, b'D', length).is_err(), "{length}");
            let mut header = [&[b'D'][..], &length.to_be_bytes()].concat();
            assert!(
                MessageFilter::new(UrlTrust::Own).filter(&mut header).is_err(),
                "{length}: refused before more bytes arrive"
            );
        }
        let large = u32::try_from(TENANT_LARGEST + 1).unwrap();
        assert!(filter(UrlTrust::Tenant, b'D', large).is_err());
        assert!(filter(UrlTrust::Own, b'D', large).is_ok());
        // sqlx panics at each of these.
        for (kind, length) in [(b'Z', 4), (b'K', 5), (b't', 4), (b'R', 4), (b'A', 6), (b'S', 4), (b'D', 5)] {
            assert!(filter(UrlTrust::Own, kind, length).is_err(), "{}", char::from(kind));
        }
        let mut parameters = [&[b't', 0, 0, 0, 6][..], &[0, 1]].concat();
        assert!(
            MessageFilter::new(UrlTrust::Own).filter(&mut parameters).is_err(),
            "one parameter without its bytes"
        );
        let long = u32::try_from(NOTICE_LARGEST + 1).unwrap();
        assert!(filter(UrlTrust::Own, b'N', long).is_err() && filter(UrlTrust::Own, b'A', long).is_err());
    }

    #[test]
    fn a_row_has_no_more_columns_than_the_limit() {
        let row = |trust, count: u16| {
            let body = [&count.to_be_bytes()[..], &vec![0xff; 4 * usize::from(count)]].concat();
            let length = u32::try_from(body.len() + 4).unwrap();
            let mut row = [&[b'D'][..], &length.to_be_bytes(), &body].concat();
            MessageFilter::new(trust).filter(&mut row).is_ok()
        };
        assert!(row(UrlTrust::Own, COLUMNS) && !row(UrlTrust::Own, COLUMNS + 1));
        assert!(row(UrlTrust::Tenant, TENANT_COLUMNS) && !row(UrlTrust::Tenant, TENANT_COLUMNS + 1));
    }

    #[test]
    fn the_answer_of_a_tenants_server_is_limited() {
        let large = TENANT_LARGEST - 4;
        let rows = |filter: &mut MessageFilter| {
            (0..33).try_for_each(|_| filter.filter(&mut message(b'D', large)).map(drop))
        };
        assert!(rows(&mut MessageFilter::new(UrlTrust::Tenant)).is_err());
        assert!(rows(&mut MessageFilter::new(UrlTrust::Own)).is_ok());
        let mut short: Vec<u8> = (0..=TENANT_ANSWER_MESSAGES).flat_map(|_| message(b'D', 2)).collect();
        assert!(MessageFilter::new(UrlTrust::Tenant).filter(&mut short).is_err());
        let mut filter = MessageFilter::new(UrlTrust::Tenant);
        for _ in 0..100 {
            filter.query().begin(true);
            filter.filter(&mut message(b'D', large)).unwrap();
            filter.filter(&mut message(b'Z', 1)).unwrap();
        }
        // A `ReadyForQuery` (`Z`) does not reset the limit: a server can make sqlx send many queries.
        let many = (0..100).try_for_each(|_| {
            filter.filter(&mut message(b'D', large))?;
            filter.filter(&mut message(b'Z', 1)).map(drop)
        });
        assert!(many.is_err(), "the limit holds for all answers to one query of ours");
    }
}
