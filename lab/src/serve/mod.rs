//! Real TCP and UDP servers for pods, which answer with their name and the source address they saw.
//!
//! Every line (TCP) or datagram (UDP) that arrives gets one line back: an [`Answer`]. A connection may stay open
//! for as many lines as the client likes. An HTTP request gets the same line as the body of a response, so that
//! `curl` works too.

mod answer;
mod tcp;
mod udp;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::net::{Family, Member};

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
    /// Serves TCP and UDP on these ports of the member's IPv4 and IPv6 address, under the member's name. It
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

    /// Serves TCP and UDP on these addresses of the member, under a name of its own.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_at(member: &Member, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let runtime = RUNTIME.as_ref().context("start the servers' threads")?;
        let bind = || -> Result<Vec<(TcpListener, UdpSocket)>> {
            let both = |at: &SocketAddr| -> std::io::Result<_> {
                let sockets = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
                sockets.0.set_nonblocking(true)?;
                sockets.1.set_nonblocking(true)?;
                Ok(sockets)
            };
            addresses
                .iter()
                .map(|at| both(at).with_context(|| format!("listen on {at} in {}", member.name)))
                .collect()
        };
        let sockets = member.namespace.enter(bind)??;
        let _inside = runtime.enter();
        let mut server = Self { tasks: Vec::new() };
        for (tcp, udp) in sockets {
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            let udp = tokio::net::UdpSocket::from_std(udp)?;
            let tasks = [
                runtime.spawn(tcp::serve(tcp, name.into())).abort_handle(),
                runtime.spawn(udp::serve(udp, name.into())).abort_handle(),
            ];
            server.tasks.extend(tasks);
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
