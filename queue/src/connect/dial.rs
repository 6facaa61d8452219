//! Opens a connection to a host, encrypted as `sslmode` says.

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

use crate::tenant_limits::system_resolver;

use super::{
    fault::Fault,
    target::{Host, Target},
    tls::{TlsOptions, explain},
    values::{Keepalive, SslMode},
};

/// A connection to a server: TCP, TLS or a Unix socket.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection on which no session has started.
pub(super) struct Dialed {
    pub(super) stream: Box<dyn Stream>,
    /// Whether the peer is known to be the right server. Then a password may be sent in clear.
    pub(super) verified: bool,
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    Plain,
    /// If the server supports it.
    Optional,
    Required,
}

/// The message `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The mode bits of a folder that allow users other than its owner to create files in it.
const OTHERS_WRITE: u32 = 0o022;

impl SslMode {
    /// The encryptions to try, in order. The next one is tried after the server has refused the previous one.
    pub(super) fn encryptions(self) -> &'static [Encryption] {
        match self {
            Self::Disable => &[Encryption::Plain],
            Self::Allow => &[Encryption::Plain, Encryption::Required],
            Self::Prefer => &[Encryption::Optional, Encryption::Plain],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Encryption::Required],
        }
    }
}

/// An address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    /// The path of a Unix socket; a name that begins with `@` is an abstract one.
    Unix(String),
}

/// The addresses of a host, in the resolver's order. Fails if the policy refuses one of them, or after
/// `patience`.
pub(super) async fn resolve(target: &Target, host: &Host, patience: Duration) -> Result<Vec<Address>, Fault> {
    if host.is_folder() {
        return Ok(vec![Address::Unix(format!("{}/.s.PGSQL.{}", host.name, host.port))]);
    }
    if let Some(address) = host.address {
        return Ok(vec![Address::Tcp(SocketAddr::new(address, host.port))]);
    }
    let Ok(found) = timeout(patience, look_up(target, host)).await else {
        return Err(Fault::Unreachable(explain_slow_dns(target, host, patience)));
    };
    if found.is_empty() {
        return Err(Fault::Unreachable(format!("cannot resolve the name `{}`", host.name)));
    }
    // The checked addresses themselves are used: a second look-up could return others.
    let policy = target.host_policy.as_deref();
    if let Some(why) = found.iter().find_map(|address| policy?.refuses(&host.name, *address)) {
        return Err(Fault::Forbidden(why));
    }
    Ok(found.into_iter().map(|address| Address::Tcp(SocketAddr::new(address, host.port))).collect())
}

async fn look_up(target: &Target, host: &Host) -> Vec<IpAddr> {
    if let Some(tenant) = &target.tenant {
        return tenant.look_up(&host.name, system_resolver).await;
    }
    match lookup_host((host.name.as_str(), host.port)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::debug!(host = host.name, %error, "cannot resolve a name");
            Vec::new()
        }
    }
}

/// Explains why a name waits for DNS: this name has no answer, or other names of the same tenant use up its
/// look-ups.
fn explain_slow_dns(target: &Target, host: &Host, patience: Duration) -> String {
    let name = &host.name;
    let others = target.tenant.as_ref().map(crate::Tenant::pending_look_ups).unwrap_or_default();
    if others.is_empty() || others.contains(name) {
        return format!(
            "no DNS server answered for the name `{name}` within {patience:.1?}: correct the name, or its DNS"
        );
    }
    let others = others.join("`, `");
    format!(
        "the name `{name}` waits for the DNS look-ups of `{others}`, which other URLs use: correct those \
         names, or their DNS"
    )
}

/// Connects within `patience`.
pub(super) async fn dial(
    target: &Target,
    host: &Host,
    address: &Address,
    encryption: Encryption,
    patience: Duration,
) -> Result<Dialed, Fault> {
    let dialed = async {
        match address {
            Address::Unix(name) => {
                let stream = open_unix(name).await.map_err(|error| Fault::io(&error))?;
                let verified = stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid(), name));
                Ok(Dialed { stream: Box::new(stream), verified })
            }
            Address::Tcp(address) => {
                let stream =
                    open_tcp(*address, &target.keepalive).await.map_err(|error| Fault::io(&error))?;
                encrypt(stream, &target.tls, host, encryption).await
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

/// Whether the server behind a Unix socket is the right one. It must run as root, as the user of this
/// program, or as the owner of the socket's folder if no other user can have created the socket there. In
/// `/tmp`, and with an abstract name, any user may listen.
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
        let mut probes = TcpKeepalive::new();
        probes = keepalive.idle.map_or(probes.clone(), |idle| probes.with_time(idle));
        probes = keepalive.interval.map_or(probes.clone(), |interval| probes.with_interval(interval));
        probes = keepalive.count.map_or(probes.clone(), |count| probes.with_retries(count));
        socket.set_tcp_keepalive(&probes)?;
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
    encryption: Encryption,
) -> Result<Dialed, Fault> {
    if encryption == Encryption::Plain {
        return Ok(Dialed { stream: Box::new(stream), verified: false });
    }
    if !tls.direct && !supports_tls(&mut stream).await? {
        if encryption == Encryption::Optional {
            return Ok(Dialed { stream: Box::new(stream), verified: false });
        }
        let mode = tls.mode.name();
        return Err(Fault::Tls(format!(
            "the server does not support TLS, and sslmode is {mode}: enable TLS in the server, or leave \
             out sslmode and the CA"
        )));
    }
    let name = ServerName::try_from(host.name.clone());
    let name =
        name.map_err(|_| Fault::Tls(format!("`{}` is not a name that a certificate can have", host.name)))?;
    let connector = TlsConnector::from(Arc::new(tls.config().await?));
    let stream = connector.connect(name, stream).await.map_err(|error| explain(&error, &host.name))?;
    Ok(Dialed { stream: Box::new(stream), verified: tls.proves_the_server() })
}

async fn supports_tls(stream: &mut TcpStream) -> Result<bool, Fault> {
    stream.write_all(&SSL_REQUEST).await.map_err(|error| Fault::io(&error))?;
    match stream.read_u8().await.map_err(|error| Fault::io(&error))? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        other => Err(Fault::Protocol(format!("the answer to SSLRequest is 0x{other:02x}"))),
    }
}
