//! Which hosts the URL of a tenant may make the operator connect to. Pure functions.
//!
//! A tenant chooses the host; the operator connects from its own network and reports the result. Without
//! limits, a tenant could probe hosts that it cannot reach (SSRF). So hosts that cannot be a tenant's
//! database are refused: the operator's own pod, link-local addresses, the metadata services of clouds, and
//! the Service of the API server. The addresses of nodes and of the API server's endpoints are not refused by
//! default: reading them needs cluster-wide rights, and a database may listen on a node. An administrator can
//! refuse more hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The metadata services of clouds, in addition to link-local addresses: Alibaba, Azure, Amazon over IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The environment variable of every pod with the host of the API server.
const API_SERVER: &str = "KUBERNETES_SERVICE_HOST";

/// Refused hosts, and exceptions from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPolicy {
    allowed: Vec<HostPattern>,
    refused: Vec<HostPattern>,
    /// The API server, from the environment of the pod and from a kubeconfig.
    api_server: Vec<HostPattern>,
}

/// A host by name, or a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Name(String),
    Range(IpAddr, u8),
}

impl HostPolicy {
    /// `allowed` and `refused`: names, addresses and ranges of addresses, such as `10.0.0.0/24`; a host in
    /// both is allowed. `api_server`: the host of the kubeconfig, in addition to the one of the pod's
    /// environment.
    #[must_use]
    pub fn new(allowed: &[String], refused: &[String], api_server: Option<&str>) -> Self {
        let patterns = |all: &[String]| all.iter().filter_map(|text| HostPattern::parse(text).ok()).collect();
        let in_pod = std::env::var(API_SERVER).ok();
        let api_server = in_pod.as_deref().into_iter().chain(api_server);
        let api_server = api_server.filter_map(|host| HostPattern::parse(host).ok()).collect();
        Self { allowed: patterns(allowed), refused: patterns(refused), api_server }
    }

    /// Checks an entry of these lists; an empty one is valid.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub fn check(text: &str) -> std::result::Result<(), String> {
        if text.trim().is_empty() { Ok(()) } else { HostPattern::parse(text).map(drop) }
    }

    /// Why the host is refused by its name, or `None`. The text continues a sentence that begins "the
    /// database URL".
    pub(crate) fn refuses_name(&self, host: &str) -> Option<String> {
        let name = normalize(host);
        let named = |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.is_named(&name));
        if named(&self.allowed) {
            return None;
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Some(loopback(host));
        }
        if named(&self.api_server) || named(&self.refused) {
            return Some(cluster_address(host));
        }
        self.refuses(host, name.parse().ok()?)
    }

    /// Why the host is refused because of one of its addresses, or `None`.
    pub(crate) fn refuses(&self, host: &str, address: IpAddr) -> Option<String> {
        let address = effective_address(address);
        let name = normalize(host);
        let within = |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.contains(address));
        if within(&self.allowed) || self.allowed.iter().any(|pattern| pattern.is_named(&name)) {
            return None;
        }
        if address.is_loopback() || address.is_unspecified() {
            return Some(loopback(host));
        }
        let local = match address {
            IpAddr::V4(address) => {
                address.is_link_local() || address.is_multicast() || address.is_broadcast()
            }
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
        };
        (local || METADATA.contains(&address) || within(&self.api_server) || within(&self.refused))
            .then(|| cluster_address(host))
    }
}

impl HostPattern {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.trim_matches(['[', ']']).parse::<IpAddr>();
        match (address, bits) {
            (Err(_), None) => Ok(Self::Name(normalize(text))),
            (Ok(address), None) => {
                Ok(Self::Range(effective_address(address), width(effective_address(address))))
            }
            (Ok(address), Some(bits)) => {
                let bits = bits.parse().ok().filter(|bits| *bits <= width(address));
                let bits =
                    bits.ok_or_else(|| format!("the prefix length of `{text}` does not fit its address"))?;
                Ok(Self::Range(address, bits))
            }
            (Err(_), Some(_)) => Err(format!("`{text}` is not a range of addresses, such as 10.0.0.0/24")),
        }
    }

    fn is_named(&self, plain: &str) -> bool {
        matches!(self, Self::Name(name) if name == plain)
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Range(IpAddr::V4(range), bits), IpAddr::V4(address)) => {
                (range.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*bits)
            }
            (Self::Range(IpAddr::V6(range), bits), IpAddr::V6(address)) => {
                (range.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*bits)
            }
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn normalize(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// The address to which packets are finally sent. An IPv6 address may contain an IPv4 address, directly or
/// for NAT64.
fn effective_address(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address.to_canonical() else { return address.to_canonical() };
    match six.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            if !six.is_loopback() && !six.is_unspecified() =>
        {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::from([a, b, c, d])
        }
        _ => IpAddr::V6(six),
    }
}

fn cluster_address(host: &str) -> String {
    format!(
        "names `{host}`, which is an address of the cluster itself: name the Service or host of the \
         database, or ask the operator's administrator to add it to allowedDatabaseHosts"
    )
}

fn loopback(host: &str) -> String {
    format!(
        "names `{host}`, which is every pod's own address, and the operator does not run in your pod: name \
         the Service or host of the database, which both can reach"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> HostPolicy {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        HostPolicy::new(
            &texts(allowed),
            &texts(&["10.7.0.0/16", "2001:db8:7::/48", "node-1.example"]),
            Some("10.96.0.1"),
        )
    }

    #[test]
    fn hosts_that_cannot_be_a_tenants_database_are_refused() {
        for (host, says) in [
            ("localhost", "does not run in your pod"),
            ("LocalHost.", "does not run in your pod"),
            ("db.localhost", "does not run in your pod"),
            ("127.0.0.1", "does not run in your pod"),
            ("127.9.9.9", "does not run in your pod"),
            ("0.0.0.0", "does not run in your pod"),
            ("::1", "does not run in your pod"),
            ("::ffff:127.0.0.1", "does not run in your pod"),
            ("169.254.169.254", "allowedDatabaseHosts"),
            ("fe80::1", "allowedDatabaseHosts"),
            ("fd00:ec2::254", "allowedDatabaseHosts"),
            ("10.96.0.1", "allowedDatabaseHosts"),
            ("::ffff:10.96.0.1", "allowedDatabaseHosts"),
            ("64:ff9b::169.254.169.254", "allowedDatabaseHosts"),
            ("64:ff9b::127.0.0.1", "does not run in your pod"),
            ("::127.0.0.1", "does not run in your pod"),
            ("::10.96.0.1", "allowedDatabaseHosts"),
        ] {
            let refusal = policy(&[]).refuses_name(host).unwrap_or_default();
            assert!(refusal.contains(says), "{host}: {refusal}");
        }
        for host in ["db.shop.svc", "10.0.0.1", "192.168.1.1", "2001:db8::1", "localhost.example.com"] {
            assert_eq!(policy(&[]).refuses_name(host), None, "{host}");
        }
    }

    #[test]
    fn an_api_server_given_by_name_is_refused_by_name() {
        let policy = HostPolicy::new(&[], &[], Some("api.cluster.example"));
        assert!(policy.refuses_name("API.cluster.example.").is_some());
        assert_eq!(policy.refuses_name("db.cluster.example"), None);
    }

    #[test]
    fn a_name_is_refused_because_of_its_address() {
        let own = IpAddr::from([127, 0, 0, 1]);
        assert!(policy(&[]).refuses("db.example.com", own).is_some());
        assert_eq!(policy(&[]).refuses("db.example.com", IpAddr::from([10, 0, 0, 1])), None);
    }

    #[test]
    fn an_administrator_can_allow_a_host() {
        let own = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(policy(&["127.0.0.1"]).refuses_name("127.0.0.1"), None);
        assert_eq!(policy(&["127.0.0.1"]).refuses("db.example.com", own), None);
        assert_eq!(policy(&["db.example.com"]).refuses("DB.example.com", own), None);
        assert_eq!(policy(&["localhost"]).refuses_name("localhost"), None);
        assert!(policy(&["localhost"]).refuses_name("127.0.0.1").is_some());
    }

    #[test]
    fn a_host_refused_by_an_administrator_is_refused_in_every_notation() {
        for host in ["10.7.3.4", "::ffff:10.7.3.4", "64:ff9b::10.7.3.4", "2001:db8:7:1::2", "Node-1.example."]
        {
            let refusal = policy(&[]).refuses_name(host).unwrap_or_default();
            assert!(refusal.contains("allowedDatabaseHosts"), "{host}: {refusal}");
        }
        let node = IpAddr::from([10, 7, 3, 4]);
        assert!(policy(&[]).refuses("db.example.com", node).is_some());
        assert_eq!(policy(&[]).refuses_name("10.8.0.1"), None);
        // An exception for one node.
        assert_eq!(policy(&["10.7.3.4"]).refuses_name("10.7.3.4"), None);
        assert_eq!(policy(&["10.7.3.0/24"]).refuses("db.example.com", node), None);
        assert!(policy(&["10.7.3.0/24"]).refuses_name("10.7.4.1").is_some());
    }

    #[test]
    fn an_invalid_range_is_an_error() {
        for text in ["10.0.0.0/33", "10.0.0.0/x", "node/24", "::/129"] {
            assert!(HostPolicy::check(text).is_err(), "{text}");
        }
        for text in ["", "10.0.0.0/8", "::/0", "db.example", "[::1]"] {
            assert_eq!(HostPolicy::check(text), Ok(()), "{text}");
        }
    }
}
