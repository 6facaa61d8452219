//! From a host to a connection that the protocol can be spoken on, encrypted as `sslmode` says.

use std::{
    net::{IpAddr, SocketAddr},
    os::{linux::net::SocketAddrExt, unix::fs::MetadataExt},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::tenants::by_system;

use super::{
    fault::Fault,
    target::{Host, Target, TlsOptions},
    values::{Keepalive, SslMode},
};

/// A server's end, whatever it is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to a server that has heard nothing of us yet.
pub(super) struct Dialed {
    pub(super) stream: Box<dyn Stream>,
    /// Nobody but the right server hears what is said on it.
    pub(super) safe: bool,
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    Plain,
    /// If the server can.
    Offered,
    Required,
}

/// "Do you speak TLS?", as long as itself, with the number that says so.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Permissions of a folder by which others than its owner may put something into it.
const OTHERS_WRITE: u32 = 0o022;

impl SslMode {
    /// The ways to connect, in order: the next one is for when a server refuses the one before.
    pub(super) fn ways(self) -> &'static [Encryption] {
        match self {
            Self::Disable => &[Encryption::Plain],
            Self::Allow => &[Encryption::Plain, Encryption::Required],
            Self::Prefer => &[Encryption::Offered, Encryption::Plain],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Encryption::Required],
        }
    }
}

/// Where a host's server can be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    /// The name of a Unix socket; one that begins with `@` is an abstract one.
    Unix(String),
}

/// The addresses of a host, in the resolver's order; none if one of them is out of reach. What takes longer
/// than `patience` is told to be the name's affair.
pub(super) async fn resolve(target: &Target, host: &Host, patience: Duration) -> Result<Vec<Address>, Fault> {
    if host.is_folder() {
        return Ok(vec![Address::Unix(format!("{}/.s.PGSQL.{}", host.name, host.port))]);
    }
    if let Some(address) = host.address {
        return Ok(vec![Address::Tcp(SocketAddr::new(address, host.port))]);
    }
    let Ok(found) = timeout(patience, look_up(target, host)).await else {
        return Err(Fault::Unreachable(unresolved(target, host, patience)));
    };
    if found.is_empty() {
        return Err(Fault::Unreachable(format!("the name `{}` is not known here", host.name)));
    }
    // Checked here, where nobody can have the name mean something else before it is connected to.
    let policy = target.host_policy.as_deref();
    if let Some(why) = found.iter().find_map(|address| policy?.refuses(&host.name, *address)) {
        return Err(Fault::Forbidden(why));
    }
    Ok(found.into_iter().map(|address| Address::Tcp(SocketAddr::new(address, host.port))).collect())
}

async fn look_up(target: &Target, host: &Host) -> Vec<IpAddr> {
    if let Some(tenant) = &target.tenant {
        return tenant.look_up(&host.name, by_system).await;
    }
    match lookup_host((host.name.as_str(), host.port)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::debug!(host = host.name, %error, "a name was not resolved");
            Vec::new()
        }
    }
}

/// Whose DNS server does not answer.
fn unresolved(target: &Target, host: &Host, patience: Duration) -> String {
    let name = &host.name;
    let others = target.tenant.as_ref().map(crate::Tenant::looked_up).unwrap_or_default();
    if others.is_empty() || others.contains(name) {
        return format!(
            "no DNS server has answered for the name `{name}` within {patience:.1?}: correct the name, or \
             its DNS"
        );
    }
    let others = others.join("`, `");
    format!(
        "the name `{name}` waits until DNS has answered for `{others}`, which other URLs name: correct \
         those, or their DNS"
    )
}

/// Connects within `patience`, and encrypts as `way` says.
pub(super) async fn dial(
    target: &Target,
    host: &Host,
    address: &Address,
    way: Encryption,
    patience: Duration,
) -> Result<Dialed, Fault> {
    let dialed = async {
        match address {
            Address::Unix(name) => {
                let stream = open_unix(name).await.map_err(|error| Fault::io(&error))?;
                let safe = stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid(), name));
                Ok(Dialed { stream: Box::new(stream), safe })
            }
            Address::Tcp(address) => {
                let stream =
                    open_tcp(*address, &target.keepalive).await.map_err(|error| Fault::io(&error))?;
                encrypt(stream, &target.tls, host, way).await
            }
        }
    };
    let late = || Fault::Unreachable(format!("no answer within {patience:.1?}"));
    timeout(patience, dialed).await.map_err(|_| late())?
}

async fn open_unix(name: &str) -> std::io::Result<UnixStream> {
    let Some(name) = name.strip_prefix('@') else { return UnixStream::connect(name).await };
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Whether the server behind a Unix socket is the right one: it runs as root or as we do, or as a user in whose
/// folder the socket is, and nobody else can have put it there. In `/tmp` and among the abstract names anybody
/// may listen.
pub(super) fn is_trusted(peer: u32, name: &str) -> bool {
    let trusted = [0, nix::unistd::Uid::effective().as_raw()];
    if trusted.contains(&peer) {
        return true;
    }
    let folder = std::path::Path::new(name).parent().filter(|folder| folder.is_absolute());
    let Some(folder) = folder.and_then(|folder| folder.canonicalize().ok()) else { return false };
    folder.ancestors().all(|folder| {
        std::fs::metadata(folder).is_ok_and(|folder| {
            let owned = folder.uid() == peer || trusted.contains(&folder.uid());
            owned && folder.mode() & OTHERS_WRITE == 0
        })
    })
}

async fn open_tcp(address: SocketAddr, keepalive: &Keepalive) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    if !keepalive.off {
        let mut signs = TcpKeepalive::new();
        signs = keepalive.idle.map_or(signs.clone(), |idle| signs.with_time(idle));
        signs = keepalive.interval.map_or(signs.clone(), |interval| signs.with_interval(interval));
        signs = keepalive.count.map_or(signs.clone(), |count| signs.with_retries(count));
        socket.set_tcp_keepalive(&signs)?;
    }
    if keepalive.user_timeout.is_some() {
        socket.set_tcp_user_timeout(keepalive.user_timeout)?;
    }
    Ok(stream)
}

async fn encrypt(
    mut stream: TcpStream,
    tls: &TlsOptions,
    host: &Host,
    way: Encryption,
) -> Result<Dialed, Fault> {
    if way == Encryption::Plain {
        return Ok(Dialed { stream: Box::new(stream), safe: false });
    }
    if !tls.direct && !speaks_tls(&mut stream).await? {
        if way == Encryption::Offered {
            return Ok(Dialed { stream: Box::new(stream), safe: false });
        }
        let mode = tls.mode.name();
        return Err(Fault::Tls(format!(
            "the server does not speak TLS, and sslmode is {mode}: switch TLS on in the server, or leave out sslmode and the CA"
        )));
    }
    let name = ServerName::try_from(host.name.clone());
    let name =
        name.map_err(|_| Fault::Tls(format!("`{}` is no name that a certificate can be for", host.name)))?;
    let connector = TlsConnector::from(Arc::new(tls.config().await?));
    let stream =
        connector.connect(name, stream).await.map_err(|error| super::tls::explain(&error, &host.name))?;
    Ok(Dialed { stream: Box::new(stream), safe: tls.proves_the_server() })
}

impl TlsOptions {
    /// An authority signs for many: without a look at the name, each of them could be the server.
    fn proves_the_server(&self) -> bool {
        self.mode == SslMode::VerifyFull
    }
}

async fn speaks_tls(stream: &mut TcpStream) -> Result<bool, Fault> {
    stream.write_all(&SSL_REQUEST).await.map_err(|error| Fault::io(&error))?;
    match stream.read_u8().await.map_err(|error| Fault::io(&error))? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        other => Err(Fault::Protocol(format!("answer to the question for TLS: 0x{other:02x}"))),
    }
}
