//! What of a server's stream reaches sqlx.

use std::task::{Context, Poll};

use tokio::sync::mpsc::Sender;

use super::{
    fault::Fault,
    message_filter::{HEADER, Head, MessageFilter},
};
use crate::QueueId;

/// Takes out what is said beside an answer.
pub(super) struct Sieve {
    filter: MessageFilter,
    notifications: Option<Sender<QueueId>>,
    /// Type and length of a message that was checked, and is not all there.
    due: Option<(u8, usize)>,
}

impl Sieve {
    /// What is notified goes to `notifications`, if it is given, and not to sqlx.
    pub(super) fn new(filter: MessageFilter, notifications: Option<Sender<QueueId>>) -> Self {
        Self { filter, notifications, due: None }
    }

    /// Waits for leave to pass on a long answer.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.filter.poll_turn(cx)
    }

    /// Ready when a long answer takes too long.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.filter.poll_late(cx)
    }

    /// Of these bytes, moves to the front what is to be passed on. Answers how many bytes that are, and how many
    /// it has seen; the others it is to be given again, with those that follow.
    pub(super) fn filter(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        if self.notifications.is_some() { self.sift_messages(bytes) } else { self.filter.filter(bytes) }
    }

    /// Message by message: a connection that is rung on carries heartbeats, whose answers are short.
    fn sift_messages(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut kept, mut at) = (0, 0);
        loop {
            // Looked at before room is made for it.
            let (kind, length) = match (self.due, Head::of(&bytes[at..])) {
                (Some(due), _) => due,
                (None, Some(head)) => (head.kind, self.filter.check(head)?),
                (None, None) => return Ok((kept, at)),
            };
            self.due = Some((kind, length));
            let Some(message) = bytes.get(at..at + length) else { return Ok((kept, at)) };
            match (kind, &self.notifications) {
                (b'A', Some(notifications)) => ring(&message[HEADER..], notifications),
                (b'N', _) => (),
                _ => {
                    bytes.copy_within(at..at + length, kept);
                    kept += length;
                }
            }
            (at, self.due) = (at + length, None);
        }
    }
}

/// The sender's process, the channel and the payload, which is the queue's number. One that cannot be heard
/// now is found by the poll.
fn ring(body: &[u8], notifications: &Sender<QueueId>) {
    let mut words = body.get(4..).unwrap_or_default().split(|byte| *byte == 0);
    let payload = words.nth(1).and_then(|payload| std::str::from_utf8(payload).ok());
    if let Some(queue) = payload.and_then(|payload| payload.parse().ok()) {
        let _ = notifications.try_send(queue);
    }
}
