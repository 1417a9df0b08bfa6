//! Associations of kernels with SCTP sockets: the whole handshake, and a line each way as data.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, SockType, SockaddrStorage, bind, setsockopt, sockopt};
use std::os::fd::AsRawFd;

use super::super::socket::{Deadline, connect, connected, open, outcome_of, unused_port};
use super::super::{Outcome, RefusedBy, tcp};

/// A port from which to associate, and the association as long as there is one: when it breaks, the next request makes
/// another from the same port, as clients of SCTP do.
#[derive(Debug)]
pub(in super::super) struct Established {
    from: SocketAddr,
    to: SocketAddr,
    socket: Mutex<Option<OwnedFd>>,
}

/// Chooses the address and port to associate from.
pub(super) fn associate(to: SocketAddr) -> io::Result<Result<Established, Outcome>> {
    // The address that the route has. Left to itself SCTP offers the server all addresses of the host, which the server
    // would then use as well, past whatever rewrote the first packet.
    let route = open(to.ip(), SockType::Datagram, Some(SockProtocol::Udp))?;
    if let Err(error) = connect(&route, to) {
        return outcome_of(&route, error).map(Err).ok_or_else(|| error.into());
    }
    let from = SocketAddr::new(UdpSocket::from(route).local_addr()?.ip(), unused_port());
    Ok(Ok(Established {
        from,
        to,
        socket: Mutex::new(None),
    }))
}

impl Established {
    /// Asks over the association, or over a new one.
    pub(super) fn converse(&self, deadline: Deadline) -> io::Result<Outcome> {
        let mut held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match held.take() {
            Some(socket) => socket,
            None => match establish(self.from, self.to, deadline)? {
                Ok(socket) => socket,
                Err(outcome) => return Ok(outcome),
            },
        };
        let outcome = tcp::converse(&socket, "hello", deadline)?;
        *held = outcome.answer().is_some().then_some(socket);
        Ok(outcome)
    }
}

/// The handshake; the inner error is what became of it instead.
fn establish(from: SocketAddr, to: SocketAddr, deadline: Deadline) -> io::Result<Result<OwnedFd, Outcome>> {
    let socket = open(to.ip(), SockType::Stream, Some(SockProtocol::Sctp))?;
    // Ends by an ABORT, so that the port is free for the next one at once, and nothing lingers when the server is gone.
    let abort = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, sockopt::Linger, &abort)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    match connected(&socket, to, deadline)? {
        None => Ok(Err(Outcome::Timeout)),
        Some(Ok(())) => Ok(Ok(socket)),
        Some(Err(Errno::ECONNREFUSED)) => Ok(Err(Outcome::Refused(refused_by(&socket, to)))),
        Some(Err(error)) => outcome_of(&socket, error).map(Err).ok_or_else(|| error.into()),
    }
}

/// An ABORT ends the attempt. An ICMP message only reports an error, and the kernel goes on trying.
fn refused_by(socket: &OwnedFd, to: SocketAddr) -> RefusedBy {
    match connect(socket, to) {
        Err(Errno::EALREADY) => RefusedBy::Icmp,
        _ => RefusedBy::Reset,
    }
}
