//! The start of a session. Its messages are forwarded between sqlx and the server one by one.
//!
//! sqlx connects to a host or a Unix socket by itself and cannot use an open connection. So each session
//! opens a Unix socket with a random abstract name for a moment. It accepts only this process.

use std::{os::linux::net::SocketAddrExt, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc::Sender,
    time::timeout,
};

use super::{
    answer_permits::QueryState,
    dial::{Dialed, Stream},
    fault::Fault,
    message_filter::{HEADER, Head, MessageFilter},
    notification_filter::NotificationFilter,
    proxy::{Proxy, WRITE_TIMEOUT},
    scram,
    server_status::ServerStatus,
    target::Target,
    values::{Auth, Servers},
};
use crate::QueueId;

/// The most bytes that a server may send before it is ready. Usually they are a few hundred bytes of
/// parameters, a key, and possibly an error.
const STARTUP_LARGEST: usize = 64 << 10;
/// The largest message of sqlx about the password.
const PASSWORD_MESSAGE_LARGEST: usize = 16 << 10;
/// Version 3.0 of the protocol.
const VERSION: u32 = 0x0003_0000;
/// The message `Terminate`.
const TERMINATE: [u8; HEADER] = [b'X', 0, 0, 0, 4];

/// The socket to which sqlx connects, once.
pub(super) struct LocalSocket {
    listener: UnixListener,
    /// The folder of the socket, as sqlx expects it.
    pub(super) folder: String,
}

impl LocalSocket {
    pub(super) fn open() -> Result<Self, Fault> {
        let name =
            format!("rowlock-{}-{:016x}{:016x}", std::process::id(), fastrand::u64(..), fastrand::u64(..));
        let bound = || {
            // sqlx appends the file name to the folder.
            let address =
                std::os::unix::net::SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.{PORT}"))?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = bound().map_err(|error| Fault::io(&error))?;
        Ok(Self { listener, folder: format!("\0{name}") })
    }

    /// Waits for a connection from this process. Other processes in the same network namespace may have found
    /// the name; they are disconnected.
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

/// The port in the name of that socket; it never leaves this process.
pub(super) const PORT: u16 = 5432;

/// The settings of a new session.
pub(super) struct Startup<'a> {
    pub(super) target: &'a Target,
    /// `options` of the startup message, after those of the URL.
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

impl Startup<'_> {
    /// Runs the startup until the server is ready and suitable. sqlx connects through the local socket.
    pub(super) async fn run(self, socket: LocalSocket, dialed: Dialed) -> Result<StartedSession, Fault> {
        let Dialed { stream: mut server, verified } = dialed;
        let mut client = socket.accept().await?;
        // The startup message of sqlx is dropped, because a part of it comes from the environment.
        let _ = read_body(&mut client, PASSWORD_MESSAGE_LARGEST).await.map_err(|error| Fault::io(&error))?;
        write(&mut server, &self.message()).await?;
        let mut status = ServerStatus::default();
        let (mut received, mut requested) = (0, None);
        loop {
            let (kind, message) = read_message(&mut server, &mut received).await?;
            let body = &message[HEADER..];
            match kind {
                b'R' => {
                    if let Some(answer) = self.authenticate(body, &mut requested, verified)? {
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
                    return Err(Fault::Refused { authenticating: requested.is_some() });
                }
                b'K' => (),
                // sqlx would log a notice at the level that the server chooses.
                b'N' => continue,
                other => {
                    return Err(Fault::Protocol(format!(
                        "a message of type 0x{other:02x} before the server is ready"
                    )));
                }
            }
            write(&mut client, &message).await?;
            if kind == b'Z' {
                return Ok(StartedSession { client, server, filter: MessageFilter::of(self.target) });
            }
        }
    }

    /// Whether sqlx has to answer. `None`: the login is complete. Fails if the answer could reveal the
    /// password to a wrong server.
    fn authenticate(
        &self,
        body: &[u8],
        requested: &mut Option<Auth>,
        verified: bool,
    ) -> Result<Option<bool>, Fault> {
        let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
        let method = match code {
            Some(0) => {
                if requested.is_none() {
                    self.allow(Auth::Nothing, verified)?;
                }
                return Ok(None);
            }
            Some(3) => Auth::Password,
            // Four bytes of salt follow the code.
            Some(5) if body.len() == 8 => Auth::Md5,
            Some(10) => Auth::Scram,
            // SCRAM continues and finishes. Its last message proves that the server knows the password.
            Some(code @ (11 | 12)) if *requested == Some(Auth::Scram) => {
                scram::check(&body[4..], verified)?;
                return Ok(Some(code == 11));
            }
            Some(7 | 9) => {
                return Err(Fault::Login(
                    "the server asks for a login by GSSAPI, which is not supported: configure scram-sha-256 \
                     there"
                        .into(),
                ));
            }
            other => return Err(Fault::Protocol(format!("an authentication request of kind {other:?}"))),
        };
        self.allow(method, verified)?;
        if self.target.password.is_none() {
            return Err(Fault::Login(
                "the server asks for a password, and the URL has none: write postgres://user:password@…"
                    .into(),
            ));
        }
        *requested = Some(method);
        Ok(Some(true))
    }

    fn allow(&self, method: Auth, verified: bool) -> Result<(), Fault> {
        self.target.refuse_auth(method, verified).map_or(Ok(()), |why| Err(Fault::Login(why)))
    }

    /// The startup message.
    fn message(&self) -> Vec<u8> {
        let Self { target, options, application_name, .. } = self;
        let options: Vec<&str> = target.options.as_deref().into_iter().chain(*options).collect();
        let options = options.join(" ");
        let mut pairs = vec![
            ("user", target.user.as_str()),
            ("database", &target.database),
            ("application_name", application_name),
            // The formats in which sqlx reads answers.
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
        ];
        if !options.is_empty() {
            pairs.push(("options", &options));
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

/// A whole message of the server and its type. `received` counts the bytes so far.
async fn read_message(server: &mut Box<dyn Stream>, received: &mut usize) -> Result<(u8, Vec<u8>), Fault> {
    let mut message = vec![0; HEADER];
    server.read_exact(&mut message).await.map_err(|error| Fault::io(&error))?;
    let Some(head) = Head::of(&message) else {
        return Err(Fault::Protocol("a row before the server is ready".into()));
    };
    let length = head.length(STARTUP_LARGEST)?;
    *received += length;
    if *received > STARTUP_LARGEST {
        return Err(Fault::Protocol(format!("more than {STARTUP_LARGEST} bytes before the server is ready")));
    }
    message.resize(length + 1, 0);
    server.read_exact(&mut message[HEADER..]).await.map_err(|error| Fault::io(&error))?;
    Ok((head.kind, message))
}

/// The body of a message: its length, which includes itself, comes first.
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

/// The answer of sqlx to an authentication request, in the form for the server.
async fn read_reply(client: &mut UnixStream) -> Result<Vec<u8>, Fault> {
    let read = async {
        let kind = client.read_u8().await?;
        let body = read_body(client, PASSWORD_MESSAGE_LARGEST).await?;
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
    timeout(WRITE_TIMEOUT, written).await.unwrap_or_else(late).map_err(|error| Fault::io(&error))
}

impl StartedSession {
    /// Where the session announces each query.
    pub(super) fn query(&self) -> Arc<QueryState> {
        self.filter.query()
    }

    /// The proxy for the rest of the session. With `notifications`, NOTIFY messages go there instead of to
    /// sqlx. `on_fault` gets the reason if the proxy closes the connection, before sqlx can notice.
    pub(super) fn proxy(
        self,
        notifications: Option<Sender<QueueId>>,
        on_fault: Box<dyn FnOnce(Fault) + Send>,
    ) -> Result<Proxy, Fault> {
        let Self { client, server, filter } = self;
        Proxy::new(client, server, NotificationFilter::new(filter, notifications), on_fault)
            .map_err(|error| Fault::io(&error))
    }
}
