//! Splits a URL into its parts. No error quotes text that cannot be parsed, because it may be a part of the
//! password.

use crate::{Error, Result};

/// An example of a URL, for messages.
pub(super) const EXAMPLE: &str = "postgres://user:password@host:5432/database";

/// The decoded parts of a URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uri {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Names and ports, in order; a name may be empty.
    pub(super) hosts: Vec<(String, Option<u16>)>,
    pub(super) database: Option<String>,
    /// Names and values, in order.
    pub(super) params: Vec<(String, String)>,
}

/// An error about the URL.
pub(super) fn wrong(what: impl std::fmt::Display) -> Error {
    Error::Url(format!("the database URL {what}"))
}

impl Uri {
    pub(super) fn read(text: &str) -> Result<Self> {
        let text = text.trim();
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let Some(rest) = rest else {
            return Err(wrong(format_args!("is not a Postgres URI: write {EXAMPLE}")));
        };
        if rest.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
            return Err(wrong("contains a blank or a #: write %20 and %23 instead"));
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = before.split_once('/').unwrap_or((before, ""));
        if database.contains(['@', '/']) {
            return Err(wrong(
                "has an @ or a / after its host: in a user, password or database write %40 for @ and %2F \
                 for /",
            ));
        }
        let (login, hosts) =
            authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let (user, password) =
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        Ok(Self {
            user: some(decode(user)?),
            password: password.map(decode).transpose()?.and_then(some),
            hosts: hosts.split(',').map(host).collect::<Result<_>>()?,
            database: some(decode(database)?),
            params: query.split('&').filter(|pair| !pair.is_empty()).map(param).collect::<Result<_>>()?,
        })
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A name, an address or `[IPv6]`, with or without a port.
fn host(text: &str) -> Result<(String, Option<u16>)> {
    let (name, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, ""))) => (address, None),
        Some(Some((address, rest))) if rest.starts_with(':') => (address, Some(&rest[1..])),
        Some(_) => return Err(wrong("has a [ without ]: write an IPv6 address as [::1]:5432")),
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    Ok((decode(name)?, port.filter(|port| !port.is_empty()).map(parse_port).transpose()?))
}

/// 1 to 65535.
pub(super) fn parse_port(text: &str) -> Result<u16> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| {
        wrong("has a port that is not a number from 1 to 65535; in a password write %3A for : and %40 for @")
    })
}

fn param(pair: &str) -> Result<(String, String)> {
    let (name, value) =
        pair.split_once('=').ok_or_else(|| wrong("has a parameter without =: write ?name=value"))?;
    Ok((decode(name)?, decode(value)?))
}

/// Decodes `%XX`. A `+` stays as it is.
fn decode(text: &str) -> Result<String> {
    let bad = || wrong("has a % that is not followed by two hexadecimal digits: write %25 for %");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
        bytes.push(value.and_then(|value| u8::try_from(value).ok()).ok_or_else(bad)?);
    }
    let decoded = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    decoded.ok_or_else(|| wrong("contains bytes that are not UTF-8 text"))
}
