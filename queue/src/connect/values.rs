//! The values of single URL parameters, as in libpq.

use std::time::Duration;

use super::uri::wrong;
use crate::{Error, Result};

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The supported versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsVersion {
    V12,
    V13,
}

/// `target_session_attrs`: which servers are suitable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Servers {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// One entry of `require_auth`: this method, or with `false` any other method.
pub(super) type AuthRule = (Auth, bool);

/// An authentication method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    /// The server asks for no authentication.
    Nothing,
    Password,
    Md5,
    Scram,
}

/// TCP keepalive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Keepalive {
    pub(super) off: bool,
    pub(super) idle: Option<Duration>,
    pub(super) interval: Option<Duration>,
    pub(super) count: Option<u32>,
    pub(super) user_timeout: Option<Duration>,
}

impl SslMode {
    const ALL: [(&str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    pub(super) fn parse(value: &str) -> Result<Self> {
        one_of("sslmode", value, &Self::ALL)
    }

    /// The spelling in a URL.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}

impl Servers {
    pub(super) fn parse(value: &str) -> Result<Self> {
        let all = [
            ("any", Self::Any),
            ("read-write", Self::ReadWrite),
            ("read-only", Self::ReadOnly),
            ("primary", Self::Primary),
            ("standby", Self::Standby),
            ("prefer-standby", Self::PreferStandby),
        ];
        one_of("target_session_attrs", value, &all)
    }
}

pub(super) fn parse_auth(value: &str) -> Result<Vec<AuthRule>> {
    let name = "require_auth";
    let rule = |method: &str| {
        let (method, wanted) = method.strip_prefix('!').map_or((method, true), |method| (method, false));
        Ok(match method {
            "none" => Some((Auth::Nothing, wanted)),
            "password" => Some((Auth::Password, wanted)),
            "md5" => Some((Auth::Md5, wanted)),
            "scram-sha-256" => Some((Auth::Scram, wanted)),
            // Never used, so excluding them has no effect.
            "gss" | "sspi" | "oauth" if !wanted => None,
            "gss" | "sspi" | "oauth" => {
                return Err(wrong(format_args!(
                    "has require_auth={method}, which is not supported: give a password"
                )));
            }
            _ => return Err(not_one_of(name, &["scram-sha-256", "md5", "password", "none"])),
        })
    };
    let rules: Vec<Option<AuthRule>> =
        value.split(',').map(|method| rule(method.trim())).collect::<Result<_>>()?;
    let rules: Vec<AuthRule> = rules.into_iter().flatten().collect();
    if rules.iter().any(|(_, wanted)| *wanted) && rules.iter().any(|(_, wanted)| !*wanted) {
        return Err(wrong("has a require_auth that mixes methods with and without !: use only one form"));
    }
    Ok(rules)
}

fn one_of<T: Copy>(name: &str, value: &str, all: &[(&str, T)]) -> Result<T> {
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let found = all.iter().find(|(name, _)| *name == value);
    found.map(|(_, value)| *value).ok_or_else(|| not_one_of(name, &names))
}

pub(super) fn not_one_of(name: &str, all: &[&str]) -> Error {
    wrong(format_args!("has an unknown {name}: write {}", all.join(", ")))
}
