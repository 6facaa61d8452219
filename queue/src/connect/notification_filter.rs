//! Decides which of a server's messages reach sqlx.

use std::task::{Context, Poll};

use tokio::sync::mpsc::Sender;

use super::{
    fault::Fault,
    message_filter::{HEADER, Head, MessageFilter},
};
use crate::QueueId;

/// A [`MessageFilter`] that also forwards notifications to the listener.
pub(super) struct NotificationFilter {
    filter: MessageFilter,
    notifications: Option<Sender<QueueId>>,
    /// Type and length of a message whose header was checked and whose body is incomplete.
    incomplete: Option<(u8, usize)>,
}

impl NotificationFilter {
    /// With `notifications`, NOTIFY messages go there, and sqlx never gets them.
    pub(super) fn new(filter: MessageFilter, notifications: Option<Sender<QueueId>>) -> Self {
        Self { filter, notifications, incomplete: None }
    }

    /// Waits for a permit to forward a long answer.
    pub(super) fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.filter.poll_permit(cx)
    }

    /// Ready when a long answer has taken too long.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.filter.poll_overdue(cx)
    }

    /// Moves the bytes for sqlx to the front. Returns their number, and how many bytes were processed. Call
    /// it again with the remaining bytes followed by newer ones.
    pub(super) fn filter(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        if self.notifications.is_some() { self.filter_whole(bytes) } else { self.filter.filter(bytes) }
    }

    /// Processes only whole messages. A listening connection carries heartbeats, whose answers are short.
    fn filter_whole(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut kept, mut at) = (0, 0);
        loop {
            // The header is checked before the buffer grows for the message.
            let (kind, length) = match (self.incomplete, Head::of(&bytes[at..])) {
                (Some(incomplete), _) => incomplete,
                (None, Some(head)) => (head.kind, self.filter.check(head)?),
                (None, None) => return Ok((kept, at)),
            };
            self.incomplete = Some((kind, length));
            let Some(message) = bytes.get(at..at + length) else { return Ok((kept, at)) };
            match (kind, &self.notifications) {
                (b'A', Some(notifications)) => forward(&message[HEADER..], notifications),
                (b'N', _) => (),
                _ => {
                    bytes.copy_within(at..at + length, kept);
                    kept += length;
                }
            }
            (at, self.incomplete) = (at + length, None);
        }
    }
}

/// Forwards a notification: the sender's process, the channel, and the queue's id as payload. If the receiver
/// is full the notification is dropped, because the poll finds the tasks too.
fn forward(body: &[u8], notifications: &Sender<QueueId>) {
    let mut words = body.get(4..).unwrap_or_default().split(|byte| *byte == 0);
    let payload = words.nth(1).and_then(|payload| std::str::from_utf8(payload).ok());
    if let Some(queue) = payload.and_then(|payload| payload.parse().ok()) {
        let _ = notifications.try_send(queue);
    }
}
