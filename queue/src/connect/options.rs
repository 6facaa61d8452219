//! The caller's settings for a connection.

use std::sync::Arc;

use crate::{HostPolicy, Tenant};

/// Where the database is, and how to reach it.
#[derive(Clone)]
pub struct Connect {
    /// A Postgres URI with its password. Never logged.
    pub url: String,
    /// The certificate authorities (PEM) that may sign the server's certificate, instead of the built-in
    /// ones. A CA makes `sslmode` `verify-full`, unless the URL says `verify-ca`.
    pub ca_pem: Option<Arc<str>>,
    /// Who wrote the URL.
    pub trust: UrlTrust,
    /// The tenant that wrote the URL. Its connections share threads and memory with other tenants, within
    /// limits. `None`: no such limits.
    pub tenant: Option<Tenant>,
    /// The hosts that the URL may point to. `None`: any host.
    pub host_policy: Option<Arc<HostPolicy>>,
    /// Whether the connection is used for writing.
    pub access: Access,
    /// The domain that is appended to a host without dots, such as `shop.svc`. It is not appended to
    /// `localhost`.
    pub domain: Option<Arc<str>>,
    /// Shown in `pg_stat_activity`. It replaces the `application_name` of the URL, because instances are
    /// counted by this name.
    pub application_name: String,
    /// The maximum number of connections.
    pub max_connections: u32,
}

/// Who wrote a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UrlTrust {
    /// The user who runs this program: the URL may name files and Unix sockets of this machine.
    #[default]
    Own,
    /// A user who may not read files of this machine. A URL that names a file is refused, and the server's
    /// messages have tighter limits.
    Tenant,
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Reading and writing; a server that refuses writes is refused.
    #[default]
    ReadWrite,
    /// Reading only; a standby is accepted.
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
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("application_name", &self.application_name).finish_non_exhaustive()
    }
}
