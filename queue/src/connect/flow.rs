//! What sqlx and a server say to each other, passed on in both directions.

use std::{
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    os::unix::net::UnixStream as Bare,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Sleep, sleep},
};

use super::{dial::Stream, fault::Fault, sieve::Sieve};

/// Room for what is asked, which is short, and for what is answered, which may be long.
const ASKED: usize = 16 << 10;
const ANSWERED: usize = 32 << 10;
/// No peer that is there keeps us from writing for longer; one that has vanished would for as long as TCP
/// goes on hoping.
pub(super) const WRITE_LONGEST: Duration = Duration::from_mins(1);

/// A session's bytes on their way.
pub(super) struct Flow {
    client: Client,
    server: Box<dyn Stream>,
    asked: Asked,
    answered: Answered,
    over: Option<Box<dyn FnOnce(Fault) + Send>>,
}

/// From sqlx to the server, which may be told anything.
struct Asked {
    room: Vec<u8>,
    due: Range<usize>,
    /// With TLS, what is written may lie here yet.
    unflushed: bool,
    /// sqlx has hung up.
    closing: bool,
    stall: Stall,
}

/// From the server to sqlx, as far as it passes the sieve.
struct Answered {
    room: Vec<u8>,
    due: Range<usize>,
    /// Seen in part, and to be looked at again when more has come.
    rest: Range<usize>,
    sieve: Sieve,
    stall: Stall,
}

impl Flow {
    /// `over` is told why it was broken off, if it was, before sqlx can notice.
    pub(super) fn new(
        client: UnixStream,
        server: Box<dyn Stream>,
        sieve: Sieve,
        over: Box<dyn FnOnce(Fault) + Send>,
    ) -> io::Result<Self> {
        let (asked, answered) = (vec![0; ASKED], vec![0; ANSWERED]);
        Ok(Self {
            client: Client::Bare { stream: client.into_std()?, may_have_written: true, hung_up: false },
            server,
            asked: Asked { room: asked, due: 0..0, unflushed: false, closing: false, stall: Stall(None) },
            answered: Answered { room: answered, due: 0..0, rest: 0..0, sieve, stall: Stall(None) },
            over: Some(over),
        })
    }

    /// Passes on what has come; ready when one of the two has hung up, or the server has broken the bounds.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { client, server, asked, answered, over } = self;
        // The server's last words come before the client's.
        if let Poll::Ready(fault) = answered.poll(cx, server, client) {
            if let (Some(fault), Some(over)) = (fault, over.take()) {
                over(fault);
            }
            return Poll::Ready(());
        }
        asked.poll(cx, client, server)
    }

    /// sqlx has run in this task, and may have written.
    pub(super) fn note_client(&mut self) {
        if let Client::Bare { may_have_written, .. } = &mut self.client {
            *may_have_written = true;
        }
    }

    /// sqlx has hung up: what it wrote before is all there is.
    pub(super) fn note_end(&mut self) {
        self.note_client();
        if let Client::Bare { hung_up, .. } = &mut self.client {
            *hung_up = true;
        }
    }

    /// From now on the runtime tells of sqlx, too, which runs in another task.
    pub(super) fn watched(mut self) -> io::Result<Self> {
        if let Client::Bare { stream, .. } = self.client {
            self.client = Client::Watched(UnixStream::from_std(stream)?);
        }
        Ok(self)
    }
}

impl Asked {
    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Client, server: &mut Box<dyn Stream>) -> Poll<()> {
        loop {
            match self.poll_write(cx, server) {
                Poll::Ready(Ok(())) if self.closing => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.stall.end(),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.stall.poll(cx),
            }
            match ready!(client.poll_read(cx, &mut self.room)) {
                Ok(n) if n > 0 => (self.due, self.unflushed) = (0..n, true),
                // With TLS the server hears a goodbye.
                _ => self.closing = true,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, server: &mut Box<dyn Stream>) -> Poll<io::Result<()>> {
        while !self.due.is_empty() {
            match ready!(Pin::new(&mut *server).poll_write(cx, &self.room[self.due.clone()]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                n => self.due.start += n,
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut *server).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.closing { Pin::new(server).poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl Answered {
    /// A fault is the server's.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Box<dyn Stream>,
        client: &mut Client,
    ) -> Poll<Option<Fault>> {
        loop {
            if let Err(fault) = ready!(self.sieve.poll_turn(cx)) {
                return Poll::Ready(Some(fault));
            }
            while !self.due.is_empty() {
                match client.poll_write(cx, &self.room[self.due.clone()]) {
                    Poll::Ready(Ok(n)) if n > 0 => self.due.start += n,
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return self.stall.poll(cx).map(|()| None),
                }
            }
            self.stall.end();
            let held = self.make_room();
            let mut room = ReadBuf::new(&mut self.room[held..]);
            let n = match Pin::new(&mut *server).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => room.filled().len(),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return self.sieve.poll_late(cx).map(Some),
            };
            match self.sieve.filter(&mut self.room[..held + n]) {
                Ok((kept, seen)) => (self.due, self.rest) = (0..kept, seen..held + n),
                Err(fault) => return Poll::Ready(Some(fault)),
            }
        }
    }

    /// Where there is some: behind so many bytes that were seen in part. A message that is kept until all of
    /// it is there gets as much room as it fills, not as much as it announces.
    fn make_room(&mut self) -> usize {
        let held = self.rest.len();
        self.room.copy_within(self.rest.clone(), 0);
        self.rest = 0..held;
        if held == self.room.len() {
            self.room.resize(2 * held, 0);
        } else if held < ANSWERED && self.room.len() > ANSWERED {
            self.room.truncate(ANSWERED);
            self.room.shrink_to_fit();
        }
        held
    }
}

/// Our end of the socket whose other end is sqlx's.
enum Client {
    /// sqlx runs in this task. The runtime is not asked to watch our end: it would wake the task once more
    /// for each message, and what sqlx has done is known when it has run.
    Bare {
        stream: Bare,
        may_have_written: bool,
        hung_up: bool,
    },
    Watched(UnixStream),
}

impl Client {
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Bare { may_have_written: false, .. } => Poll::Pending,
            Self::Bare { stream, may_have_written, hung_up } => {
                let read = at_once(|| stream.read(room));
                let drained = matches!(read, Poll::Ready(Ok(n)) if n < room.len());
                *may_have_written = *hung_up || !(drained || read.is_pending());
                read
            }
            Self::Watched(stream) => {
                let mut room = ReadBuf::new(room);
                Pin::new(stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            // sqlx is woken by what is there already, and this is polled again when it has run.
            Self::Bare { stream, .. } => at_once(|| stream.write(bytes)),
            Self::Watched(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// What can be done without waiting. Nothing wakes the task where it cannot.
fn at_once<T>(mut done: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match done() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            done => return Poll::Ready(done),
        }
    }
}

/// For how long a peer has kept us from writing, if it does.
struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Ready when that is too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(WRITE_LONGEST))).as_mut().poll(cx)
    }

    fn end(&mut self) {
        if self.0.is_some() {
            self.0 = None;
        }
    }
}
