//! Records the first bytes of the current answer on a connection: whether an answer has begun, and its
//! status.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Length of `HTTP/1.1 200`: an answer's beginning up to its status.
const STATUS_BYTES: usize = 12;

/// The beginning of an answer. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerStart(Arc<Mutex<Vec<u8>>>);

impl AnswerStart {
    /// Call it before another request is sent: the next bytes belong to the answer to that request.
    pub(crate) fn clear(&self) {
        self.bytes().clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The status, if the beginning of the answer is HTTP. The status of an interim answer does not count,
    /// because the final one follows.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        let bytes = self.bytes();
        let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..)?;
        StatusCode::from_bytes(status).ok().filter(|status| !status.is_informational())
    }

    fn record(&self, came: &[u8]) {
        let mut bytes = self.bytes();
        let room = STATUS_BYTES.saturating_sub(bytes.len()).min(came.len());
        bytes.extend_from_slice(&came[..room]);
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that records the beginning of each answer.
#[derive(Debug)]
pub(crate) struct RecordingStream {
    stream: TcpStream,
    start: AnswerStart,
}

impl RecordingStream {
    pub(crate) fn new(stream: TcpStream, start: AnswerStart) -> Self {
        Self { stream, start }
    }
}

impl AsyncRead for RecordingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.start.record(&into.filled()[before..]);
        read
    }
}

impl AsyncWrite for RecordingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[&str], expected: Option<u16>) {
        let start = AnswerStart::default();
        for part in parts {
            start.record(part.as_bytes());
        }
        assert_eq!(start.status().map(|status| status.as_u16()), expected, "{parts:?}");
    }

    #[test]
    fn the_status_is_read_from_the_first_bytes() {
        check(&["HTTP/1.1 200 OK\r\nx: y"], Some(200));
        check(&["HT", "TP/1.0", " 50", "3"], Some(503));
        check(&["HTTP/1.1 20"], None);
        check(&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"], None);
        check(&["SSH-2.0-OpenSSH_9.2"], None);
        check(&[], None);
    }
}
