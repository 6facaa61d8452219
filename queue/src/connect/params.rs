//! The parameters of a URL, with libpq's names and meanings. Known parameters are checked, and unsupported
//! ones are refused with a reason. Unknown ones are refused too, because a misspelt `sslmode` would silently
//! leave a connection unencrypted.

use std::time::Duration;

use super::{
    options::UrlTrust,
    uri::{parse_port, wrong},
    values::{AuthRule, Keepalive, Servers, SslMode, TlsVersion, not_one_of, parse_auth},
};
use crate::{Error, Result};

/// The parsed parameters of a URL.
#[derive(Debug, Default)]
pub(super) struct Params {
    pub(super) hosts: Option<String>,
    pub(super) addresses: Option<String>,
    pub(super) ports: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<String>,
    pub(super) options: Option<String>,
    pub(super) ssl_mode: Option<SslMode>,
    pub(super) root_cert: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) cert_mode: Option<String>,
    pub(super) no_sni: bool,
    pub(super) direct: bool,
    pub(super) oldest_tls: Option<TlsVersion>,
    pub(super) newest_tls: Option<TlsVersion>,
    pub(super) servers: Servers,
    pub(super) auth: Vec<AuthRule>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalive: Keepalive,
}

/// All known names, to suggest the nearest one for an unknown name.
const KNOWN: [&str; 31] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcertmode",
    "sslsni",
    "sslnegotiation",
    "sslcompression",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
    "application_name",
    "fallback_application_name",
    "target_session_attrs",
    "require_auth",
    "channel_binding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "client_encoding",
    "gssencmode",
    "load_balance_hosts",
];

/// Parameters of libpq that are not supported, and what to do instead.
const REFUSED: [(&str, &str); 21] = [
    ("sslcrl", "revocation lists are not read: leave it out"),
    ("sslcrldir", "revocation lists are not read: leave it out"),
    ("sslpassword", "keys with a passphrase are not read: write the key without one"),
    ("sslkeylogfile", "TLS keys are not logged: leave it out"),
    ("requiressl", "it is obsolete: write sslmode=require"),
    ("requirepeer", "the user of the server behind a Unix socket is not checked: leave it out"),
    ("passfile", "password files are not read: write the password into the URL"),
    ("service", "service files are not read: write the URL itself"),
    ("servicefile", "service files are not read: write the URL itself"),
    ("krbsrvname", "Kerberos is not supported: give a password"),
    ("gsslib", "GSSAPI is not supported: give a password"),
    ("gssdelegation", "GSSAPI is not supported: give a password"),
    ("scram_client_key", "SCRAM keys are not supported: give a password"),
    ("scram_server_key", "SCRAM keys are not supported: give a password"),
    ("oauth_issuer", "OAuth is not supported: give a password"),
    ("oauth_client_id", "OAuth is not supported: give a password"),
    ("oauth_client_secret", "OAuth is not supported: give a password"),
    ("oauth_scope", "OAuth is not supported: give a password"),
    ("replication", "replication is not used: leave it out"),
    ("min_protocol_version", "only version 3.0 of the protocol is used: leave it out"),
    ("max_protocol_version", "only version 3.0 of the protocol is used: leave it out"),
];

/// A name with more differences than this from a known one, or with more than half of its letters different,
/// is not a misspelling.
const MISSPELLING_MOST: usize = 3;

impl Params {
    pub(super) fn read(pairs: &[(String, String)], trust: UrlTrust) -> Result<Self> {
        let mut params = Self::default();
        for (at, (name, value)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(before, _)| before == name) {
                return Err(wrong(format_args!("has {name} twice: leave one out")));
            }
            if !params.take_server(name, value, trust)?
                && !params.take_tls(name, value, trust)?
                && !params.take_session(name, value)?
            {
                return Err(unknown(name, trust));
            }
        }
        Ok(params)
    }

    /// Parameters of the server and the login. Returns whether the name is one of these.
    fn take_server(&mut self, name: &str, value: &str, trust: UrlTrust) -> Result<bool> {
        let field = match name {
            "host" => &mut self.hosts,
            "hostaddr" => &mut self.addresses,
            "port" => &mut self.ports,
            "user" => &mut self.user,
            "password" => &mut self.password,
            "dbname" => &mut self.database,
            "options" => &mut self.options,
            _ => return Ok(false),
        };
        if name == "port" {
            value
                .split(',')
                .filter(|port| !port.is_empty())
                .try_for_each(|port| parse_port(port).map(drop))?;
        }
        if name == "host" && trust == UrlTrust::Tenant && value.split(',').any(is_folder) {
            return Err(names_a_file("host=/…", "name a host"));
        }
        *field = (!value.is_empty()).then(|| value.to_owned());
        Ok(true)
    }

    fn take_tls(&mut self, name: &str, value: &str, trust: UrlTrust) -> Result<bool> {
        let own_file = |what| if trust == UrlTrust::Own { Ok(()) } else { Err(names_a_file(name, what)) };
        match name {
            "sslmode" => self.ssl_mode = Some(SslMode::parse(value)?),
            // The spelling of JDBC, which libpq accepts in a URL.
            "ssl" if value == "true" => self.ssl_mode = Some(self.ssl_mode.unwrap_or(SslMode::Require)),
            "sslrootcert" => {
                if value != SYSTEM {
                    own_file("give the CA itself, by spec.database.caRef of the TaskQueue")?;
                }
                self.root_cert = Some(value.to_owned());
            }
            "sslcert" | "sslkey" => {
                own_file("give a user with a password")?;
                let field = if name == "sslcert" { &mut self.cert } else { &mut self.key };
                *field = Some(value.to_owned());
            }
            "sslcertmode" => {
                self.cert_mode = Some(choice(name, value, &["disable", "allow", "require"])?.to_owned());
            }
            "sslsni" => self.no_sni = choice(name, value, &["0", "1"])? == "0",
            "sslnegotiation" => self.direct = choice(name, value, &["postgres", "direct"])? == "direct",
            "sslcompression" => drop(refusing(name, value, &["0"], "1", "TLS compression is not supported")?),
            "ssl_min_protocol_version" => {
                self.oldest_tls = match choice(name, value, &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"])? {
                    "TLSv1.3" => Some(TlsVersion::V13),
                    _ => None,
                };
            }
            "ssl_max_protocol_version" => {
                self.newest_tls = match choice(name, value, &["TLSv1.2", "TLSv1.3"])? {
                    "TLSv1.2" => Some(TlsVersion::V12),
                    _ => None,
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_session(&mut self, name: &str, value: &str) -> Result<bool> {
        let keepalive = &mut self.keepalive;
        match name {
            // Replaced, because instances and operators are counted by the names that we set.
            "application_name" | "fallback_application_name" => (),
            "target_session_attrs" => self.servers = Servers::parse(value)?,
            "require_auth" => self.auth = parse_auth(value)?,
            "channel_binding" => {
                let why = "channel binding is not supported: leave it out, and write sslmode=verify-full, \
                           which ties the connection to the server's certificate";
                refusing(name, value, &["disable", "prefer"], "require", why)?;
            }
            "connect_timeout" => self.connect_timeout = seconds(name, value)?,
            "keepalives" => keepalive.off = choice(name, value, &["0", "1"])? == "0",
            "keepalives_idle" => keepalive.idle = seconds(name, value)?,
            "keepalives_interval" => keepalive.interval = seconds(name, value)?,
            "keepalives_count" => keepalive.count = number(name, value)?.filter(|count| *count != 0),
            "tcp_user_timeout" => {
                let millis = number(name, value)?.filter(|millis| *millis != 0);
                keepalive.user_timeout = millis.map(|millis| Duration::from_millis(millis.into()));
            }
            "client_encoding" => {
                if !["utf8", "utf-8", "auto"].contains(&value.to_lowercase().as_str()) {
                    return Err(wrong("has a client_encoding other than UTF8: leave it out"));
                }
            }
            "gssencmode" => {
                refusing(
                    name,
                    value,
                    &["disable", "prefer"],
                    "require",
                    "GSSAPI is not supported: write sslmode=require",
                )?;
            }
            "load_balance_hosts" => {
                refusing(
                    name,
                    value,
                    &["disable"],
                    "random",
                    "hosts are always tried in order: leave it out",
                )?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The value of `sslrootcert` for the built-in authorities.
pub(super) const SYSTEM: &str = "system";

/// Whether a host is the folder of a Unix socket, or an abstract name.
pub(super) fn is_folder(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

fn choice<'a>(name: &str, value: &'a str, all: &[&str]) -> Result<&'a str> {
    all.contains(&value).then_some(value).ok_or_else(|| not_one_of(name, all))
}

/// A choice where libpq has one more value that is not supported.
fn refusing<'a>(name: &str, value: &'a str, supported: &[&str], refused: &str, why: &str) -> Result<&'a str> {
    if value == refused {
        return Err(wrong(format_args!("has {name}={refused}, and {why}")));
    }
    choice(name, value, supported)
}

fn number(name: &str, value: &str) -> Result<Option<u32>> {
    let number = value.parse().map_err(|_| wrong(format_args!("has a {name} that is not a whole number")))?;
    Ok(Some(number))
}

/// Zero means the default.
fn seconds(name: &str, value: &str) -> Result<Option<Duration>> {
    let seconds = number(name, value)?.filter(|seconds| *seconds != 0);
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
}

fn names_a_file(name: &str, instead: &str) -> Error {
    wrong(format_args!("has {name}: it may not name a file of the machine that connects; {instead}"))
}

fn unknown(name: &str, trust: UrlTrust) -> Error {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return wrong(format_args!("has {name}, which is not supported: {why}"));
    }
    let distance = |known: &&str| (distance(&name.to_lowercase(), known), known.len());
    let is_misspelling = |known: &&str| distance(known).0 <= MISSPELLING_MOST.min(name.len() / 2);
    let nearest = KNOWN.into_iter().min_by_key(distance).filter(is_misspelling);
    // If a ? in a password was not encoded, this name may be a part of the password.
    let shown = name.len() <= 40 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match nearest {
        Some(nearest) => wrong(format_args!("has an unknown parameter `{name}`: did you mean `{nearest}`?")),
        None if shown && trust == UrlTrust::Own => {
            wrong(format_args!("has an unknown parameter `{name}`: leave it out"))
        }
        None => wrong("has an unknown parameter: leave it out; in a password write %3F for ? and %26 for &"),
    }
}

/// The Levenshtein distance.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let changed = before + usize::from(a != b);
            before = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(before + 1);
        }
    }
    row[other.len()]
}
