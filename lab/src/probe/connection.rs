//! A connection that is held open: it must survive what happens around it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::socket::Deadline;
use super::{Outcome, Protocol, tcp, udp};
use crate::net::Namespace;

/// An open TCP connection, or a UDP socket that keeps its port and so its conntrack entry.
#[derive(Debug)]
pub struct Connection {
    protocol: Protocol,
    socket: OwnedFd,
}

impl Connection {
    /// Opens one from a namespace; the inner error is what became of it instead.
    ///
    /// # Errors
    /// When no attempt could be made, or the protocol has no connections (SCTP here, ping).
    pub fn open(
        from: &Namespace,
        protocol: Protocol,
        to: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Result<Self, Outcome>> {
        let deadline = Deadline::after(timeout);
        let socket = from.enter(|| match protocol {
            Protocol::Tcp => tcp::establish(to, deadline),
            Protocol::Udp => udp::associate(to),
            Protocol::Sctp | Protocol::Ping => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("a {protocol} probe cannot be held open"),
            )),
        })??;
        Ok(socket.map(|socket| Self { protocol, socket }))
    }

    /// Asks once more over the same connection.
    ///
    /// # Errors
    /// When the socket itself fails; what the network does is an [`Outcome`].
    pub fn ask(&self, timeout: Duration) -> io::Result<Outcome> {
        let deadline = Deadline::after(timeout);
        match self.protocol {
            Protocol::Tcp => tcp::converse(&self.socket, "hello again", deadline),
            _ => udp::converse(&self.socket, deadline),
        }
    }
}
