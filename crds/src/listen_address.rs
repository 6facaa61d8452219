//! The addresses that a listen address stands for.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses to try, in order; listen on the first one that works. `[::]` means all addresses of both
/// families, or all IPv4 addresses on a node without IPv6.
#[must_use]
pub fn addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    let every = listen.ip() == Ipv6Addr::UNSPECIFIED;
    let ipv4 = every.then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port())));
    std::iter::once(listen).chain(ipv4).collect()
}
