//! The meaning of a URL, with every value checked: hosts, login, TLS, suitable servers and authentication
//! methods.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    options::{Access, Connect, UrlTrust},
    params::{Params, SYSTEM, is_folder},
    tls::{Roots, TlsOptions, roots_of},
    uri::{EXAMPLE, Uri, parse_port, wrong},
    values::{Auth, AuthRule, Keepalive, Servers, SslMode, TlsVersion},
};
use crate::{HostPolicy, Result, Tenant};

/// The default port.
const PORT: u16 = 5432;
/// The most hosts of one URL. All of them share the time for connecting.
const MOST_HOSTS: usize = 8;
/// The usual folders of a server's Unix socket, for a URL without a host.
const SOCKET_FOLDERS: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

/// Where and how to connect.
#[derive(Clone)]
pub(crate) struct Target {
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) options: Option<String>,
    pub(super) tls: TlsOptions,
    pub(super) auth: Vec<AuthRule>,
    pub(super) servers: Servers,
    pub(super) trust: UrlTrust,
    pub(super) tenant: Option<Tenant>,
    pub(super) host_policy: Option<Arc<HostPolicy>>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalive: Keepalive,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// A name, an address, or the folder of a Unix socket.
    pub(super) name: String,
    /// `hostaddr`: the address to connect to, instead of resolving the name.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Host {
    pub(super) fn is_folder(&self) -> bool {
        is_folder(&self.name)
    }

    /// `HOST:PORT`.
    pub(super) fn location(&self) -> String {
        let Self { name, port, .. } = self;
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }
}

impl Connect {
    /// Whether the URL can be used, without connecting. Fails with [`Error::Url`](crate::Error::Url), which
    /// names the wrong parameter and says what to change, or with [`Error::Tls`](crate::Error::Tls) if
    /// `ca_pem` holds no certificate.
    pub fn check(&self) -> Result<()> {
        self.target()?.check_ca()
    }

    /// The location to show to people: `HOST:PORT/DATABASE`, or `HOST:PORT,HOST:PORT/DATABASE` with several
    /// hosts.
    pub fn location(&self) -> Result<String> {
        Ok(self.target()?.location())
    }

    pub(crate) fn target(&self) -> Result<Target> {
        Target::of(self)
    }
}

impl Target {
    fn of(connect: &Connect) -> Result<Self> {
        let uri = Uri::read(&connect.url)?;
        let params = Params::read(&uri.params, connect.trust)?;
        let hosts = hosts(&uri, &params, connect)?;
        let user = params.user.or(uri.user).or_else(|| own_user(connect.trust));
        let user = user.ok_or_else(|| wrong(format_args!("names no user: write {EXAMPLE}")))?;
        let servers = servers(params.servers, connect.access)?;
        Self {
            hosts,
            password: params.password.or(uri.password),
            database: params.database.or(uri.database).unwrap_or_else(|| user.clone()),
            user,
            options: params.options,
            tls: TlsOptions {
                mode: mode(params.ssl_mode, params.root_cert.as_deref(), connect.ca_pem.is_some())?,
                roots: roots(params.root_cert, connect.ca_pem.clone()),
                client: client(params.cert, params.key, params.cert_mode.as_deref())?,
                sni: !params.no_sni,
                direct: params.direct,
                oldest: params.oldest_tls,
                newest: params.newest_tls,
            },
            auth: params.auth,
            servers,
            trust: connect.trust,
            tenant: connect.tenant.clone(),
            host_policy: connect.host_policy.clone(),
            connect_timeout: params.connect_timeout,
            keepalive: params.keepalive,
        }
        .checked()
    }

    /// Checks combinations of parameters.
    fn checked(self) -> Result<Self> {
        if self.tls.direct && self.tls.mode < SslMode::Require {
            return Err(wrong(
                "has sslnegotiation=direct, which needs sslmode=require, verify-ca or verify-full",
            ));
        }
        if (self.tls.oldest, self.tls.newest) == (Some(TlsVersion::V13), Some(TlsVersion::V12)) {
            return Err(wrong("has an ssl_min_protocol_version above its ssl_max_protocol_version"));
        }
        for Host { name, address, .. } in &self.hosts {
            let Some(policy) = &self.host_policy else { break };
            // The address is checked as well: an allowed name does not allow every address.
            let refused =
                policy.refuses_name(name).or_else(|| policy.refuses(&(*address)?.to_string(), (*address)?));
            if let Some(refused) = refused {
                return Err(wrong(refused));
            }
        }
        if [&self.user, &self.database].iter().any(|name| name.chars().any(char::is_control)) {
            return Err(wrong("has a control character in its user or database"));
        }
        Ok(self)
    }

    /// `HOST:PORT,HOST:PORT/DATABASE`.
    pub(crate) fn location(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::location).collect();
        format!("{}/{}", hosts.join(","), self.database)
    }

    /// `HOST:PORT/DATABASE` of one host.
    pub(super) fn location_of(&self, host: &Host) -> String {
        format!("{}/{}", host.location(), self.database)
    }

    /// Whether both are the same database, possibly with another user.
    pub(crate) fn is_same_database(&self, other: &Self) -> bool {
        self.hosts == other.hosts && self.database == other.database
    }

    /// Why this authentication method is refused, or `None` if it is allowed. `verified`: the peer is known
    /// to be the right server.
    pub(super) fn refuse_auth(&self, asked: Auth, verified: bool) -> Option<String> {
        let listed = self.auth.iter().any(|(method, wanted)| *wanted && *method == asked);
        let only = self.auth.iter().any(|(_, wanted)| *wanted);
        let excluded = self.auth.iter().any(|(method, wanted)| !*wanted && *method == asked);
        let (name, what) = match asked {
            Auth::Nothing => ("none", "does not ask for a password"),
            Auth::Password => ("password", "asks for the password in clear"),
            Auth::Md5 => ("md5", "asks for the password as MD5"),
            Auth::Scram => ("scram-sha-256", "asks for SCRAM"),
        };
        if excluded || (only && !listed) {
            return Some(format!("the server {what}, and require_auth of the URL does not allow `{name}`"));
        }
        if matches!(asked, Auth::Password | Auth::Md5) && !verified && !listed {
            return Some(format!(
                "the server {what}, and nothing proves that it is the right server: write \
                 sslmode=verify-full (with its CA), configure scram-sha-256 on the server, or allow it \
                 with require_auth={name} in the URL"
            ));
        }
        None
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("location", &self.location()).finish_non_exhaustive()
    }
}

fn hosts(uri: &Uri, params: &Params, connect: &Connect) -> Result<Vec<Host>> {
    let named = uri.hosts.iter().any(|(name, _)| !name.is_empty());
    let entries: Vec<(String, Option<u16>)> = match &params.hosts {
        Some(_) if named => {
            return Err(wrong("names a host twice, before the database and as host=: leave one out"));
        }
        Some(hosts) => hosts.split(',').map(|host| (host.to_owned(), None)).collect(),
        None => uri.hosts.clone(),
    };
    let addresses = listed(params.addresses.as_deref(), entries.len(), "hostaddr")?;
    let ports = listed(params.ports.as_deref(), entries.len(), "port")?;
    // In `:PORT/database?host=…` the port belongs to the host of the parameter.
    let written = uri.hosts.first().and_then(|(_, port)| *port).filter(|_| uri.hosts.len() == 1);
    let host = |(at, (name, port)): (usize, &(String, Option<u16>))| {
        let port = match (port, ports.get(at)) {
            (Some(port), _) => *port,
            (None, Some(port)) if !port.is_empty() => parse_port(port)?,
            _ => written.unwrap_or(PORT),
        };
        let address = addresses.get(at).filter(|address| !address.is_empty());
        let address = address.map(|address| address.parse::<IpAddr>());
        let address = address.transpose().map_err(|_| wrong("has a hostaddr that is not an IP address"))?;
        let name = if name.is_empty() { default_host(address, port, connect.trust)? } else { name.clone() };
        let name = in_domain(name, connect.domain.as_deref());
        if name.chars().any(|c| c.is_control() || c == ' ') {
            return Err(wrong("has a host with a blank or a control character"));
        }
        if is_folder(&name) && connect.trust == UrlTrust::Tenant {
            return Err(wrong("has a folder as its host: name a host"));
        }
        Ok(Host { name, address, port })
    };
    if entries.len() > MOST_HOSTS {
        return Err(wrong(format_args!("names {} hosts: name at most {MOST_HOSTS}", entries.len())));
    }
    entries.iter().enumerate().map(host).collect()
}

/// The entries of a list. There is one for each host, or one port for all hosts.
fn listed(text: Option<&str>, hosts: usize, name: &str) -> Result<Vec<String>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let entries: Vec<String> = text.split(',').map(str::to_owned).collect();
    match entries.len() {
        1 if hosts > 1 && name == "port" => Ok(vec![entries[0].clone(); hosts]),
        entries_len if entries_len == hosts => Ok(entries),
        _ => Err(wrong(format_args!("does not have one {name} for each host: give one for each host"))),
    }
}

/// The server of this machine, like libpq: by its Unix socket if there is one.
fn default_host(address: Option<IpAddr>, port: u16, trust: UrlTrust) -> Result<String> {
    if let Some(address) = address {
        return Ok(address.to_string());
    }
    if trust == UrlTrust::Tenant {
        return Err(wrong(format_args!("names no host: write {EXAMPLE}")));
    }
    let has_socket = |folder: &&str| std::path::Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    Ok(SOCKET_FOLDERS.iter().find(|folder| has_socket(folder)).copied().unwrap_or("localhost").to_owned())
}

fn in_domain(name: String, domain: Option<&str>) -> String {
    match domain {
        Some(domain) if name != "localhost" && !name.contains(['.', ':', '/', '@']) => {
            format!("{name}.{domain}")
        }
        _ => name,
    }
}

/// The user of this process, like libpq.
fn own_user(trust: UrlTrust) -> Option<String> {
    if trust == UrlTrust::Tenant {
        return None;
    }
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok()??;
    Some(user.name)
}

fn servers(wanted: Servers, access: Access) -> Result<Servers> {
    match (wanted, access) {
        (Servers::Any | Servers::Primary, Access::ReadWrite) => Ok(Servers::ReadWrite),
        (Servers::ReadOnly | Servers::Standby | Servers::PreferStandby, Access::ReadWrite) => Err(wrong(
            "has a target_session_attrs that allows a read-only server, but this program writes: leave it \
             out",
        )),
        (wanted, _) => Ok(wanted),
    }
}

/// Like in libpq, a file of root certificates turns `require` into `verify-ca`. A CA of the caller turns it
/// into `verify-full`: otherwise any server with a certificate of that CA could pass for this one. A CA
/// together with a mode below `require` is refused, because the CA would not be used.
fn mode(written: Option<SslMode>, root_cert: Option<&str>, has_ca: bool) -> Result<SslMode> {
    match written {
        None if has_ca || root_cert == Some(SYSTEM) => Ok(SslMode::VerifyFull),
        Some(mode) if root_cert == Some(SYSTEM) && mode < SslMode::VerifyFull => {
            Err(wrong("has sslrootcert=system, which needs sslmode=verify-full"))
        }
        Some(SslMode::Require) if has_ca => Ok(SslMode::VerifyFull),
        Some(SslMode::Require) if root_cert.is_some() => Ok(SslMode::VerifyCa),
        Some(mode) if has_ca && mode < SslMode::Require => Err(wrong(format_args!(
            "has sslmode={}, which checks no certificate, and a CA is given: write sslmode=verify-full",
            mode.name()
        ))),
        written => Ok(written.unwrap_or(SslMode::Prefer)),
    }
}

fn roots(file: Option<String>, ca_pem: Option<Arc<str>>) -> Roots {
    match (ca_pem, file) {
        (Some(pem), _) => Roots::Pem(pem),
        (None, Some(file)) if file != SYSTEM => Roots::File(file.into()),
        _ => Roots::BuiltIn,
    }
}

fn client(
    cert: Option<String>,
    key: Option<String>,
    mode: Option<&str>,
) -> Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key, mode) {
        (_, _, Some("disable")) | (None, None, None | Some(_)) if mode != Some("require") => Ok(None),
        (Some(cert), Some(key), _) => Ok(Some((cert.into(), key.into()))),
        _ => Err(wrong("has one of sslcert and sslkey, or sslcertmode=require without them: give both")),
    }
}

impl Target {
    /// Fails if the caller's CA holds no certificate.
    pub(super) fn check_ca(&self) -> Result<()> {
        match &self.tls.roots {
            Roots::Pem(pem) => {
                roots_of(pem.as_bytes(), "the CA").map(drop).map_err(|fault| fault.at(&self.location()))
            }
            _ => Ok(()),
        }
    }
}
