//! Associations of kernels without SCTP sockets: an INIT over a raw socket, and the INIT ACK that comes back.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{SockProtocol, SockType};

use super::super::Outcome;
use super::super::socket::{Deadline, connect, open, outcome_of, unused_port};
use super::super::udp::exchange;
use crate::sctp::Packet;

/// After how long without an answer it is asked again (SCTP begins with three seconds).
const RETRANSMISSION: Duration = Duration::from_secs(1);

/// An association that gets no further than its beginning: one port, and an INIT as often as it is asked.
#[derive(Debug)]
pub(in super::super) struct Begun {
    socket: OwnedFd,
    init: Packet,
    is_ipv4: bool,
}

/// A socket that talks to one address only, from a new port.
pub(super) fn associate(to: SocketAddr) -> io::Result<Result<Begun, Outcome>> {
    let socket = open(to.ip(), SockType::Raw, Some(SockProtocol::Sctp))?;
    // A raw socket takes a port of 0 only.
    if let Err(error) = connect(&socket, SocketAddr::new(to.ip(), 0)) {
        return outcome_of(&socket, error).map(Err).ok_or_else(|| error.into());
    }
    let init = Packet {
        from: unused_port(),
        to: to.port(),
        tag: 0x6b75_6265,
        cookie: None,
    };
    Ok(Ok(Begun {
        socket,
        init,
        is_ipv4: to.is_ipv4(),
    }))
}

impl Begun {
    /// Sends the INIT and waits for the INIT ACK; again and again, as SCTP does.
    pub(super) fn converse(&self, deadline: Deadline) -> io::Result<Outcome> {
        loop {
            let outcome = self.exchange(deadline.at_most(RETRANSMISSION))?;
            if !matches!(outcome, Outcome::Timeout) || deadline.left().is_zero() {
                return Ok(outcome);
            }
        }
    }

    fn exchange(&self, deadline: Deadline) -> io::Result<Outcome> {
        exchange(&self.socket, &self.init.encode(), deadline, |received| {
            let answer = Packet::decode(received, self.is_ipv4);
            let Some(cookie) = answer
                .filter(|a| a.to == self.init.from && a.tag == self.init.tag)
                .and_then(|a| a.cookie)
            else {
                return Ok(None);
            };
            let line = String::from_utf8_lossy(&cookie);
            line.parse()
                .map(|answer| Some(Outcome::Ok(answer)))
                .map_err(io::Error::other)
        })
    }
}
