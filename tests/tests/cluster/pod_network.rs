//! Listeners that pods reach, in the cluster's network, which is separate from the machine's.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The network namespace that tests/cluster/machine.sh made.
const POD_NETWORK: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 89, 0, 1));

/// How pods reach this process.
#[derive(Debug, Clone)]
pub(crate) enum PodNetwork {
    /// Through the network namespace of this process id.
    Inside(u32),
    /// Directly: an address of this machine.
    Address(IpAddr),
}

impl PodNetwork {
    /// Listens on a free port and returns the address.
    pub(crate) fn listen(&self) -> Result<(TcpListener, SocketAddr)> {
        self.listen_at(0)
    }

    fn listen_at(&self, port: u16) -> Result<(TcpListener, SocketAddr)> {
        let listener = match self {
            Self::Inside(process) => listen_inside(*process, port)?,
            Self::Address(address) => std::net::TcpListener::bind((*address, port))?,
        };
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    }
}

/// A socket stays in the network namespace in which its thread created it.
fn listen_inside(process: u32, port: u16) -> Result<std::net::TcpListener> {
    let network = File::open(format!("/proc/{process}/ns/net")).context("the cluster's network")?;
    let thread = std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        Ok(std::net::TcpListener::bind((POD_NETWORK, port))?)
    });
    thread.join().unwrap_or_else(|_| anyhow::bail!("no listener in the cluster's network"))
}

/// Forwards connections of pods to a loopback port of this machine until it is dropped.
pub(crate) struct Route {
    pub(crate) at: SocketAddr,
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Route {
    pub(crate) fn to(pod_network: &PodNetwork, port: u16) -> Result<Self> {
        Ok(Self::from(pod_network.listen()?, port))
    }

    /// The same, from the same port number.
    pub(crate) fn straight(pod_network: &PodNetwork, port: u16) -> Result<Self> {
        Ok(Self::from(pod_network.listen_at(port)?, port))
    }

    fn from((listener, at): (TcpListener, SocketAddr), port: u16) -> Self {
        let (open, opened) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, port, opened.clone()));
            }
        });
        Self { at, open, accepting }
    }

    /// If not `open`, closes all connections and refuses new ones.
    pub(crate) fn let_through(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut near: TcpStream, port: u16, mut open: watch::Receiver<bool>) {
    if !*open.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        // A pod that is cut off gets an error.
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => (),
        _ = open.wait_for(|open| !open) => (),
    }
}
