//! Real TCP, UDP and SCTP servers for pods, which answer with their name and the source address they saw.
//!
//! Every line (TCP) or datagram (UDP) that arrives gets one line back: an [`Answer`]. A connection may stay open
//! for as many lines as the client likes. An HTTP request gets the same line as the body of a response, so that
//! `curl` works too.

mod answer;
mod sctp;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::net::{Family, Member};
use crate::sctp::has_sockets;

pub use answer::Answer;

/// All servers of this process share two threads.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("lab-serve")
        .enable_all()
        .build()
});

/// A server in a pod (or on a node): one name, any number of ports. It ends with this value: listeners close,
/// and so do the connections.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<AbortHandle>,
}

impl Server {
    /// Serves TCP, UDP and SCTP on these ports of the member's IPv4 and IPv6 address, under the member's name. It
    /// listens when this returns.
    ///
    /// # Errors
    /// When a port is taken or the namespace cannot be entered.
    pub fn start(member: &Member, ports: &[u16]) -> Result<Self> {
        let at = Family::ALL.map(|family| member.ip(family));
        let addresses: Vec<_> = at
            .iter()
            .flat_map(|&ip| ports.iter().map(move |&port| SocketAddr::new(ip, port)))
            .collect();
        Self::start_at(member, &member.name, &addresses)
    }

    /// Serves TCP, UDP and SCTP on these addresses of the member, under a name of its own.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_at(member: &Member, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let runtime = RUNTIME.as_ref().context("start the servers' threads")?;
        let sockets = member
            .namespace
            .enter(|| Sockets::open(addresses))?
            .with_context(|| format!("serve in {}", member.name))?;
        let _inside = runtime.enter();
        let name: Arc<str> = name.into();
        let mut tasks = Vec::new();
        for listener in sockets.listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(
                runtime
                    .spawn(tcp::serve(listener, Arc::clone(&name)))
                    .abort_handle(),
            );
        }
        for udp in sockets.udp {
            let udp = tokio::net::UdpSocket::from_std(udp)?;
            tasks.push(runtime.spawn(udp::serve(udp, Arc::clone(&name))).abort_handle());
        }
        for (ip, ports, socket) in sockets.raw_sctp {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            let serving = sctp::serve(socket, ip, ports.into(), Arc::clone(&name));
            tasks.push(runtime.spawn(serving).abort_handle());
        }
        Ok(Self { tasks })
    }
}

/// The sockets of a server, made in its namespace.
#[derive(Default)]
struct Sockets {
    /// For TCP, and for SCTP where the kernel has sockets for it.
    listeners: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    /// One raw socket an address, for all its ports.
    raw_sctp: Vec<(IpAddr, Vec<u16>, UdpSocket)>,
}

impl Sockets {
    fn open(addresses: &[SocketAddr]) -> Result<Self> {
        let mut sockets = Self::default();
        for at in addresses {
            let tcp = TcpListener::bind(at).with_context(|| format!("listen on {at} by TCP"))?;
            let udp = UdpSocket::bind(at).with_context(|| format!("listen on {at} by UDP"))?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            // What is accepted inherits it.
            setsockopt(&tcp, sockopt::TcpNoDelay, &true)?;
            sockets.listeners.push(tcp);
            sockets.udp.push(udp);
            sockets
                .listen_by_sctp(*at)
                .with_context(|| format!("listen on {at} by SCTP"))?;
        }
        Ok(sockets)
    }

    fn listen_by_sctp(&mut self, at: SocketAddr) -> std::io::Result<()> {
        if has_sockets() {
            self.listeners.push(sctp::listen(at)?);
        } else if let Some((_, ports, _)) = self.raw_sctp.iter_mut().find(|(ip, ..)| *ip == at.ip()) {
            ports.push(at.port());
        } else {
            let socket = sctp::listen_raw(at.ip())?;
            self.raw_sctp.push((at.ip(), vec![at.port()], socket));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
