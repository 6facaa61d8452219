//! Between sqlx and a server: the start of a session, watched message by message.
//!
//! sqlx takes a host or a Unix socket, and no connection that is made already. So each connection has a
//! socket of its own for a moment, with a random abstract name, on which exactly one peer is let in: this
//! process.

use std::{os::linux::net::SocketAddrExt, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc::Sender,
    time::timeout,
};

use super::{
    dial::{Dialed, Stream},
    fault::Fault,
    flow::{Flow, WRITE_LONGEST},
    message_filter::{HEADER, Head, MessageFilter},
    scram,
    server_status::ServerStatus,
    sieve::Sieve,
    target::Target,
    turns::Asked,
    values::{Auth, Servers},
};
use crate::QueueId;

/// All that a server may send before it is ready: a few hundred bytes of parameters, a key, and an error if
/// there is one.
const START_LARGEST: usize = 64 << 10;
/// What sqlx sends in answer to a question for the password.
const ANSWER_LARGEST: usize = 16 << 10;
/// Version 3.0 of the protocol.
const VERSION: u32 = 0x0003_0000;
/// "I go", as a client says it.
const TERMINATE: [u8; HEADER] = [b'X', 0, 0, 0, 4];

/// Where sqlx connects, once.
pub(super) struct LocalSocket {
    listener: UnixListener,
    /// As sqlx takes it: a folder.
    pub(super) folder: String,
}

impl LocalSocket {
    pub(super) fn open() -> Result<Self, Fault> {
        let name =
            format!("rowlock-{}-{:016x}{:016x}", std::process::id(), fastrand::u64(..), fastrand::u64(..));
        let bound = || {
            // The folder and the file in it, as sqlx makes one path of them.
            let address =
                std::os::unix::net::SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.{PORT}"))?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = bound().map_err(|error| Fault::io(&error))?;
        Ok(Self { listener, folder: format!("\0{name}") })
    }

    /// Waits for this process; any other peer that shares the network and found the name is sent away.
    async fn accept(self) -> Result<UnixStream, Fault> {
        loop {
            let (stream, _) = self.listener.accept().await.map_err(|error| Fault::io(&error))?;
            let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
            if peer.and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) {
                return Ok(stream);
            }
        }
    }
}

/// The number in the name of sqlx's side; nobody else sees it.
pub(super) const PORT: u16 = 5432;

/// What a session begins with.
pub(super) struct Start<'a> {
    pub(super) target: &'a Target,
    /// `options` of the start, on top of those of the URL.
    pub(super) options: Option<&'a str>,
    pub(super) application_name: &'a str,
    pub(super) servers: Servers,
}

/// A session that has started.
pub(super) struct StartedSession {
    client: UnixStream,
    server: Box<dyn Stream>,
    filter: MessageFilter,
}

impl Start<'_> {
    /// Speaks for sqlx, which comes through the local socket, until the server is ready and is one that will do.
    pub(super) async fn run(self, socket: LocalSocket, dialed: Dialed) -> Result<StartedSession, Fault> {
        let Dialed { stream: mut server, safe } = dialed;
        let mut client = socket.accept().await?;
        // What sqlx would say of itself comes in part from the environment.
        let _ = read_body(&mut client, ANSWER_LARGEST).await.map_err(|error| Fault::io(&error))?;
        write(&mut server, &self.message()).await?;
        let mut status = ServerStatus::default();
        let (mut taken, mut asked) = (0, None);
        loop {
            let mut message = vec![0; HEADER];
            server.read_exact(&mut message).await.map_err(|error| Fault::io(&error))?;
            let Some(head) = Head::of(&message) else {
                return Err(Fault::Protocol("rows before it is ready".into()));
            };
            let (kind, length) = (head.kind, head.length(START_LARGEST)?);
            taken += length;
            if taken > START_LARGEST {
                return Err(Fault::Protocol(format!("more than {START_LARGEST} bytes before it is ready")));
            }
            message.resize(length + 1, 0);
            server.read_exact(&mut message[HEADER..]).await.map_err(|error| Fault::io(&error))?;
            let body = &message[HEADER..];
            match kind {
                b'R' => {
                    if let Some(answer) = self.authenticate(body, &mut asked, safe)? {
                        write(&mut client, &message).await?;
                        if answer {
                            let reply = read_reply(&mut client).await?;
                            write(&mut server, &reply).await?;
                        }
                        continue;
                    }
                }
                b'S' => status.note(body),
                b'Z' => {
                    if let Err(unsuitable) = status.check(self.servers) {
                        let _ = server.write_all(&TERMINATE).await;
                        return Err(unsuitable);
                    }
                }
                b'E' => {
                    write(&mut client, &message).await?;
                    return Err(Fault::Refused { asked: asked.is_some() });
                }
                b'K' => (),
                // sqlx logs it as loudly as the server says it is.
                b'N' => continue,
                other => {
                    return Err(Fault::Protocol(format!(
                        "a message of type 0x{other:02x} before it is ready"
                    )));
                }
            }
            write(&mut client, &message).await?;
            if kind == b'Z' {
                return Ok(StartedSession { client, server, filter: MessageFilter::of(self.target) });
            }
        }
    }

    /// Whether sqlx answers; `None`: the server is content. Fails where it would tell the password to the
    /// wrong one.
    fn authenticate(&self, body: &[u8], asked: &mut Option<Auth>, safe: bool) -> Result<Option<bool>, Fault> {
        let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
        let method = match code {
            Some(0) => {
                if asked.is_none() {
                    self.allow(Auth::Nothing, safe)?;
                }
                return Ok(None);
            }
            Some(3) => Auth::Password,
            // With its salt.
            Some(5) if body.len() == 8 => Auth::Md5,
            Some(10) => Auth::Scram,
            // SCRAM goes on, and ends; the server's last word proves that it knows the password.
            Some(code @ (11 | 12)) if *asked == Some(Auth::Scram) => {
                scram::check(&body[4..], safe)?;
                return Ok(Some(code == 11));
            }
            Some(7 | 9) => {
                return Err(Fault::Login(
                    "the server asks for a login by GSSAPI, which is not spoken: have it use scram-sha-256"
                        .into(),
                ));
            }
            other => return Err(Fault::Protocol(format!("a question for the login of kind {other:?}"))),
        };
        self.allow(method, safe)?;
        if self.target.password.is_none() {
            return Err(Fault::Login(
                "the server asks for a password, and the URL has none: write postgres://user:password@…"
                    .into(),
            ));
        }
        *asked = Some(method);
        Ok(Some(true))
    }

    fn allow(&self, method: Auth, safe: bool) -> Result<(), Fault> {
        self.target.refuse_auth(method, safe).map_or(Ok(()), |why| Err(Fault::Login(why)))
    }

    /// What a client says first.
    fn message(&self) -> Vec<u8> {
        let Self { target, options, application_name, .. } = self;
        let all: Vec<&str> = target.options.as_deref().into_iter().chain(*options).collect();
        let all = all.join(" ");
        let mut pairs = vec![
            ("user", target.user.as_str()),
            ("database", &target.database),
            ("application_name", application_name),
            // What sqlx reads answers by.
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
        ];
        if !all.is_empty() {
            pairs.push(("options", &all));
        }
        let mut body = VERSION.to_be_bytes().to_vec();
        for text in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &body].concat()
    }
}

/// What follows a length, which counts itself.
async fn read_body(from: &mut (impl AsyncRead + Unpin), largest: usize) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(4..=largest).contains(&length) {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length - 4];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// sqlx's answer to a question for the password, as it is to be passed on.
async fn read_reply(client: &mut UnixStream) -> Result<Vec<u8>, Fault> {
    let read = async {
        let kind = client.read_u8().await?;
        let body = read_body(client, ANSWER_LARGEST).await?;
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        Ok::<_, std::io::Error>([&[kind][..], &length.to_be_bytes(), &body].concat())
    };
    read.await.map_err(|error| Fault::io(&error))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Fault> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    let late = |_| Err(std::io::ErrorKind::TimedOut.into());
    timeout(WRITE_LONGEST, written).await.unwrap_or_else(late).map_err(|error| Fault::io(&error))
}

impl StartedSession {
    /// To be set with each question: a tenant's answer is bounded, and its end is no sign of the next one.
    pub(super) fn asked(&self) -> Arc<Asked> {
        self.filter.asked()
    }

    /// Passes on what both say, until one of them hangs up; then the other hears it. What is notified goes to
    /// `notifications`, if it is given, and not to sqlx. `broken` is told why it was broken off, if it was, before
    /// sqlx can notice.
    pub(super) fn flow(
        self,
        notifications: Option<Sender<QueueId>>,
        broken: Box<dyn FnOnce(Fault) + Send>,
    ) -> Result<Flow, Fault> {
        let Self { client, server, filter } = self;
        Flow::new(client, server, Sieve::new(filter, notifications), broken)
            .map_err(|error| Fault::io(&error))
    }
}
