//! How connections are made: a URL read by a list of parameters, TLS by our own rules, and a relay between
//! sqlx and the server.
//!
//! sqlx sends a password in clear to any server that asks for it, trusts the lengths of messages, and checks
//! certificates where `sslmode` says that it does not. So it never sees the network: it speaks to a [`relay`]
//! in this process, which speaks to the server.
//!
//! In reading order: [`Connect`] (what a caller gives), `uri` and `params` (its URL, checked), `target` (what
//! that means), `dial` and `tls` (to the server), `relay` (the start, between the server and sqlx), `pump`,
//! `flow`, `sieve` and `message_filter` (all that follows it), `panic_guard` (around sqlx), `session` (all of it together).
//!
//! There is no shorter way: sqlx 0.9 connects by itself, to a host or a Unix socket, and takes no socket that
//! is connected already, nor one of ours.

mod dial;
mod fault;
mod flow;
mod forwarder;
mod message_filter;
mod panic_guard;
mod params;
mod relay;
mod scram;
mod server_status;
mod session;
mod sieve;
mod target;
mod tls;
mod turns;
mod uri;
mod values;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{HostPolicy, Result, Tenant};

pub(crate) use fault::shorten;
pub(crate) use panic_guard::{Answer, catch_panic};
pub(crate) use session::{Connector, Session, SessionMode};
pub(crate) use target::Target;

/// Where the database is, and how it is reached.
#[derive(Clone)]
pub struct Connect {
    /// A Postgres URI, with its password. Never logged.
    pub url: String,
    /// Certificates in PEM of the authorities that a server's certificate may be signed by, in place of the
    /// built-in ones. With it `sslmode` is `verify-full`, if the URL does not say `verify-ca`.
    pub ca_pem: Option<Arc<str>>,
    /// Whose the URL is.
    pub trust: UrlTrust,
    /// With whom that tenant shares threads and memory. `None`: with nobody.
    pub tenant: Option<Tenant>,
    /// Where it may not lead, whatever its names mean. `None`: it may lead anywhere.
    pub host_policy: Option<Arc<HostPolicy>>,
    /// What is done there.
    pub access: Access,
    /// A host without dots is a name in this domain, such as `shop.svc`; `localhost` is not.
    pub domain: Option<Arc<str>>,
    /// Shown in `pg_stat_activity`; the URL's own `application_name` is not used, since instances are counted
    /// by this one.
    pub application_name: String,
    /// At most this many connections.
    pub max_connections: u32,
}

/// Whose a URL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UrlTrust {
    /// Of the user who runs this program: it may name files and Unix sockets of this machine.
    #[default]
    Own,
    /// Of somebody who may not read this machine's files: a URL that names one is refused, and what a server
    /// may send is bounded more tightly.
    Tenant,
}

/// What is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Something is written, so only a server that takes writes will do.
    #[default]
    ReadWrite,
    /// Nothing is written; a standby will do.
    ReadOnly,
}

impl Connect {
    /// A URL of the user's own, for reading and writing, without a CA.
    pub fn new(url: impl Into<String>, application_name: impl Into<String>, max_connections: u32) -> Self {
        Self {
            url: url.into(),
            ca_pem: None,
            trust: UrlTrust::Own,
            tenant: None,
            host_policy: None,
            access: Access::ReadWrite,
            domain: None,
            application_name: application_name.into(),
            max_connections,
        }
    }

    /// Whether the URL can be used, without connecting. Fails with [`Error::Url`](crate::Error::Url), which
    /// names the parameter that is wrong and says what to change; and with [`Error::Tls`](crate::Error::Tls)
    /// where `ca_pem` holds no certificate.
    pub fn check(&self) -> Result<()> {
        let target = self.target()?;
        target.check_ca()
    }

    /// Where it leads, for people: `HOST:PORT/DATABASE`, with several hosts `HOST:PORT,HOST:PORT/DATABASE`.
    pub fn place(&self) -> Result<String> {
        Ok(self.target()?.place())
    }

    pub(crate) fn target(&self) -> Result<Target> {
        Target::of(self)
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("application_name", &self.application_name).finish_non_exhaustive()
    }
}
