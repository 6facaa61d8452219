//! Where a Secret of somebody else may lead the operator: pure.
//!
//! A tenant writes the address, and the operator is asked to connect to it from where it runs, and says how that went. So it does not
//! go where no tenant's database is: to itself, to link-local addresses, to what clouds keep at addresses of
//! their own, to the API server's Service. Addresses of nodes and the API server's endpoints are not known
//! here, and not refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds keep what only their own machines may know, beside link-local addresses: Alibaba's, Azure's, Amazon's by IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Where Kubernetes says in every pod that its API server is.
const API_SERVER: &str = "KUBERNETES_SERVICE_HOST";

/// What is refused, and what is not in spite of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    allowed: Vec<String>,
    api_server: Option<IpAddr>,
    api_server_name: Option<String>,
}

impl Reach {
    /// `allowed`: names and addresses of hosts that are not refused. Where the API server is, the environment of a pod says.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        let allowed = allowed.iter().map(|host| host.trim().to_ascii_lowercase());
        let allowed = allowed.filter(|host| !host.is_empty()).collect();
        Self { allowed, ..Self::beside(std::env::var(API_SERVER).ok().as_deref()) }
    }

    /// With the API server at this address, or by this name.
    fn beside(api_server: Option<&str>) -> Self {
        let address = api_server.and_then(|host| host.parse().ok());
        let name = api_server.filter(|_| address.is_none()).map(plain);
        Self { allowed: Vec::new(), api_server: address, api_server_name: name }
    }

    /// Why the host is not asked, whatever its addresses; goes on after "the database URL".
    pub(crate) fn refuses_name(&self, host: &str) -> Option<String> {
        let name = plain(host);
        if self.allowed.contains(&name) {
            return None;
        }
        let own = name == "localhost" || name.ends_with(".localhost");
        let api_server = self.api_server_name.as_ref() == Some(&name);
        let refused = own.then(|| ourselves(host)).or_else(|| api_server.then(|| of_the_cluster(host)));
        refused.or_else(|| self.refuses(host, name.parse().ok()?))
    }

    /// Why the host is not asked at one of its addresses.
    pub(crate) fn refuses(&self, host: &str, address: IpAddr) -> Option<String> {
        let address = meant(address);
        let names = [host.to_ascii_lowercase(), address.to_string()];
        if names.iter().any(|name| self.allowed.contains(name)) {
            return None;
        }
        if address.is_loopback() || address.is_unspecified() {
            return Some(ourselves(host));
        }
        let local = match address {
            IpAddr::V4(address) => {
                address.is_link_local() || address.is_multicast() || address.is_broadcast()
            }
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
        };
        (local || METADATA.contains(&address) || self.api_server == Some(address))
            .then(|| of_the_cluster(host))
    }
}

fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Where packets to this address go in the end: an IPv4 address may be written inside of one of IPv6, plainly or
/// for a NAT64.
fn meant(address: IpAddr) -> IpAddr {
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

fn of_the_cluster(host: &str) -> String {
    format!(
        "names `{host}`, which is an address of the cluster's own machines: name the Service or host of the database, or have the \
         operator's administrator add it to allowedDatabaseHosts"
    )
}

fn ourselves(host: &str) -> String {
    format!(
        "names `{host}`, which is every pod's own address, and the operator does not run in your pod: name the Service or host of the \
         database, which both reach"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(allowed: &[&str]) -> Reach {
        let allowed = allowed.iter().map(|host| (*host).to_owned()).collect();
        Reach { allowed, ..Reach::beside(Some("10.96.0.1")) }
    }

    #[test]
    fn where_no_database_of_a_tenant_is_the_operator_does_not_go() {
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
            let said = reach(&[]).refuses_name(host).unwrap_or_default();
            assert!(said.contains(says), "{host}: {said}");
        }
        for host in ["db.shop.svc", "10.0.0.1", "192.168.1.1", "2001:db8::1", "localhost.example.com"] {
            assert_eq!(reach(&[]).refuses_name(host), None, "{host}");
        }
    }

    #[test]
    fn an_api_server_that_is_a_name_is_refused_by_it() {
        let reach = Reach::beside(Some("api.cluster.example"));
        assert!(reach.refuses_name("API.cluster.example.").is_some());
        assert_eq!(reach.refuses_name("db.cluster.example"), None);
    }

    #[test]
    fn a_name_is_refused_by_what_it_means() {
        let own = IpAddr::from([127, 0, 0, 1]);
        assert!(reach(&[]).refuses("db.example.com", own).is_some());
        assert_eq!(reach(&[]).refuses("db.example.com", IpAddr::from([10, 0, 0, 1])), None);
    }

    #[test]
    fn an_administrator_may_allow_it() {
        let own = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(reach(&["127.0.0.1"]).refuses_name("127.0.0.1"), None);
        assert_eq!(reach(&["127.0.0.1"]).refuses("db.example.com", own), None);
        assert_eq!(reach(&["db.example.com"]).refuses("DB.example.com", own), None);
        assert_eq!(reach(&["localhost"]).refuses_name("localhost"), None);
        assert!(reach(&["localhost"]).refuses_name("127.0.0.1").is_some());
    }
}
