//! A connection that is held open: it must survive what happens around it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::sctp::{self, Association};
use super::socket::Deadline;
use super::{Outcome, Protocol, tcp, udp};
use crate::net::Namespace;

/// An open TCP connection, or a UDP or SCTP port that is kept, and with it the conntrack entry. When an SCTP association
/// breaks, the next request makes another from the same port.
#[derive(Debug)]
pub struct Connection(Held);

#[derive(Debug)]
enum Held {
    Tcp(OwnedFd),
    Udp(OwnedFd),
    /// The namespace is for the next association, should this one break.
    Sctp(Association, Namespace),
}

impl Connection {
    /// Opens one from a namespace; the inner error is what became of it instead.
    ///
    /// # Errors
    /// When no attempt could be made, or the protocol has no connections (ping).
    pub fn open(
        from: &Namespace,
        protocol: Protocol,
        to: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Result<Self, Outcome>> {
        let deadline = Deadline::after(timeout);
        let held = from.enter(|| match protocol {
            Protocol::Tcp => Ok(tcp::establish(to, deadline)?.map(Held::Tcp)),
            Protocol::Udp => Ok(udp::associate(to)?.map(Held::Udp)),
            Protocol::Sctp => Ok(sctp::associate(to)?.map(|made| Held::Sctp(made, from.clone()))),
            Protocol::Ping => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a ping cannot be held open",
            )),
        })??;
        Ok(held.map(Self))
    }

    /// Asks once more over the same connection.
    ///
    /// # Errors
    /// When the socket itself fails; what the network does is an [`Outcome`].
    pub fn ask(&self, timeout: Duration) -> io::Result<Outcome> {
        let deadline = Deadline::after(timeout);
        match &self.0 {
            Held::Tcp(socket) => tcp::converse(socket, "hello again", deadline),
            Held::Udp(socket) => udp::converse(socket, deadline),
            Held::Sctp(association, from) => from.enter(|| association.converse(deadline))?,
        }
    }
}
