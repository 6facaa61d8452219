//! What an address to listen on means.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where to listen, the first that can be had: `[::]` is every address of both families, or every one of IPv4
/// on a node without IPv6.
#[must_use]
pub fn addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    let every = listen.ip() == Ipv6Addr::UNSPECIFIED;
    let ipv4 = every.then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port())));
    std::iter::once(listen).chain(ipv4).collect()
}
