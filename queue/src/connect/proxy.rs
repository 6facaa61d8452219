//! Copies the bytes of a session in both directions, between sqlx and the server.

use std::{
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    os::unix::net::UnixStream as StdUnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Sleep, sleep},
};

use super::{dial::Stream, fault::Fault, notification_filter::NotificationFilter};

/// The buffers. Queries are short, answers may be long. They are made with the first byte, so that a program
/// with hundreds of idle sessions can free them.
const TO_SERVER_BUFFER: usize = 16 << 10;
const TO_CLIENT_BUFFER: usize = 32 << 10;
/// How long a write may take. A live peer never blocks a write for longer. Without the limit, a peer that has
/// vanished would block it until TCP gives up.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// The two directions of a session.
pub(super) struct Proxy {
    client: Client,
    server: Box<dyn Stream>,
    to_server: ToServer,
    to_client: ToClient,
    on_fault: Option<Box<dyn FnOnce(Fault) + Send>>,
}

/// From sqlx to the server, unchanged.
struct ToServer {
    buffer: Vec<u8>,
    /// The bytes that are still to be written.
    pending: Range<usize>,
    /// TLS may still buffer written bytes.
    unflushed: bool,
    /// sqlx has closed the connection.
    closing: bool,
    stall: Stall,
}

/// From the server to sqlx, through the filter.
struct ToClient {
    buffer: Vec<u8>,
    /// The bytes that are still to be written.
    pending: Range<usize>,
    /// The start of a message that the filter must get again, with more bytes.
    unfiltered: Range<usize>,
    filter: NotificationFilter,
    stall: Stall,
}

impl Proxy {
    /// `on_fault` is called when the server breaks a limit, before sqlx notices that the connection ended.
    pub(super) fn new(
        client: UnixStream,
        server: Box<dyn Stream>,
        filter: NotificationFilter,
        on_fault: Box<dyn FnOnce(Fault) + Send>,
    ) -> io::Result<Self> {
        Ok(Self {
            client: Client::Unregistered {
                stream: client.into_std()?,
                may_have_written: true,
                hung_up: false,
            },
            server,
            to_server: ToServer {
                buffer: Vec::new(),
                pending: 0..0,
                unflushed: false,
                closing: false,
                stall: Stall(None),
            },
            to_client: ToClient {
                buffer: Vec::new(),
                pending: 0..0,
                unfiltered: 0..0,
                filter,
                stall: Stall(None),
            },
            on_fault: Some(on_fault),
        })
    }

    /// Copies the bytes that have arrived. Ready when one side has closed the connection, or the server has
    /// broken a limit.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { client, server, to_server, to_client, on_fault } = self;
        // The server comes first: its last message explains why it closed the connection.
        if let Poll::Ready(fault) = to_client.poll(cx, server, client) {
            if let (Some(fault), Some(on_fault)) = (fault, on_fault.take()) {
                on_fault(fault);
            }
            return Poll::Ready(());
        }
        to_server.poll(cx, client, server)
    }

    /// Frees the buffers that hold nothing.
    pub(super) fn rest(&mut self) {
        let Self { to_server, to_client, .. } = self;
        if to_server.pending.is_empty() {
            (to_server.buffer, to_server.pending) = (Vec::new(), 0..0);
        }
        if to_client.pending.is_empty() && to_client.unfiltered.is_empty() {
            (to_client.buffer, to_client.pending, to_client.unfiltered) = (Vec::new(), 0..0, 0..0);
        }
    }

    /// sqlx has run in this task, and may have written.
    pub(super) fn client_ran(&mut self) {
        if let Client::Unregistered { may_have_written, .. } = &mut self.client {
            *may_have_written = true;
        }
    }

    /// sqlx has closed the connection, so what it wrote before is all there is.
    pub(super) fn client_closed(&mut self) {
        self.client_ran();
        if let Client::Unregistered { hung_up, .. } = &mut self.client {
            *hung_up = true;
        }
    }

    /// Registers sqlx's socket with the runtime. From now on sqlx runs in another task.
    pub(super) fn registered(mut self) -> io::Result<Self> {
        if let Client::Unregistered { stream, .. } = self.client {
            self.client = Client::Registered(UnixStream::from_std(stream)?);
        }
        Ok(self)
    }
}

impl ToServer {
    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Client, server: &mut Box<dyn Stream>) -> Poll<()> {
        loop {
            match self.poll_write(cx, server) {
                Poll::Ready(Ok(())) if self.closing => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.stall.end(),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.stall.poll(cx),
            }
            if self.buffer.is_empty() {
                self.buffer = vec![0; TO_SERVER_BUFFER];
            }
            match ready!(client.poll_read(cx, &mut self.buffer)) {
                Ok(n) if n > 0 => (self.pending, self.unflushed) = (0..n, true),
                // The next round shuts the connection down, which over TLS sends a close_notify.
                _ => self.closing = true,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, server: &mut Box<dyn Stream>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match ready!(Pin::new(&mut *server).poll_write(cx, &self.buffer[self.pending.clone()]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                n => self.pending.start += n,
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut *server).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.closing { Pin::new(server).poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl ToClient {
    /// Ready with a fault if the server broke a limit, and without one if a side closed the connection.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Box<dyn Stream>,
        client: &mut Client,
    ) -> Poll<Option<Fault>> {
        loop {
            if let Err(fault) = ready!(self.filter.poll_permit(cx)) {
                return Poll::Ready(Some(fault));
            }
            while !self.pending.is_empty() {
                match client.poll_write(cx, &self.buffer[self.pending.clone()]) {
                    Poll::Ready(Ok(n)) if n > 0 => self.pending.start += n,
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return self.stall.poll(cx).map(|()| None),
                }
            }
            self.stall.end();
            let held = self.make_space();
            let mut space = ReadBuf::new(&mut self.buffer[held..]);
            let n = match Pin::new(&mut *server).poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => space.filled().len(),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return self.filter.poll_overdue(cx).map(Some),
            };
            match self.filter.filter(&mut self.buffer[..held + n]) {
                Ok((kept, seen)) => (self.pending, self.unfiltered) = (0..kept, seen..held + n),
                Err(fault) => return Poll::Ready(Some(fault)),
            }
        }
    }

    /// Moves the unfiltered bytes to the front and returns their number. The buffer grows with the bytes that
    /// have arrived, not with the length that a message announces.
    fn make_space(&mut self) -> usize {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TO_CLIENT_BUFFER];
        }
        let held = self.unfiltered.len();
        self.buffer.copy_within(self.unfiltered.clone(), 0);
        self.unfiltered = 0..held;
        if held == self.buffer.len() {
            self.buffer.resize(2 * held, 0);
        } else if held < TO_CLIENT_BUFFER && self.buffer.len() > TO_CLIENT_BUFFER {
            self.buffer.truncate(TO_CLIENT_BUFFER);
            self.buffer.shrink_to_fit();
        }
        held
    }
}

/// Our end of the socket whose other end belongs to sqlx.
enum Client {
    /// sqlx runs in this task. The socket is not registered with the runtime, which would wake the task once
    /// more for each message. The proxy knows when sqlx has run.
    Unregistered {
        stream: StdUnixStream,
        may_have_written: bool,
        hung_up: bool,
    },
    Registered(UnixStream),
}

impl Client {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Unregistered { may_have_written: false, .. } => Poll::Pending,
            Self::Unregistered { stream, may_have_written, hung_up } => {
                let read = poll_once(|| stream.read(buffer));
                let drained = matches!(read, Poll::Ready(Ok(n)) if n < buffer.len());
                *may_have_written = *hung_up || !(drained || read.is_pending());
                read
            }
            Self::Registered(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                Pin::new(stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            // The bytes that are already there wake sqlx, and this is polled again after it has run.
            Self::Unregistered { stream, .. } => poll_once(|| stream.write(bytes)),
            Self::Registered(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// Does the operation if that is possible without waiting. If it is not, nothing wakes the task.
fn poll_once<T>(mut operation: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            done => return Poll::Ready(done),
        }
    }
}

/// The timer of a blocked write.
struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Starts the timer at the first call; ready when [`WRITE_TIMEOUT`] is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT))).as_mut().poll(cx)
    }

    fn end(&mut self) {
        if self.0.is_some() {
            self.0 = None;
        }
    }
}
