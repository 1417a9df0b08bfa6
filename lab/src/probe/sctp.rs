//! An SCTP INIT from a new port, over a raw socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{SockProtocol, SockType};

use super::Outcome;
use super::socket::{Deadline, connect, open, outcome_of, unused_port};
use super::udp::exchange;
use crate::sctp::Packet;

/// Sends one INIT and waits for the INIT ACK with the server's answer.
pub(super) fn request(to: SocketAddr, timeout: Duration) -> io::Result<Outcome> {
    let socket = open(to.ip(), SockType::Raw, Some(SockProtocol::Sctp))?;
    // A raw socket takes a port of 0 only.
    if let Err(error) = connect(&socket, SocketAddr::new(to.ip(), 0)) {
        return outcome_of(&socket, error).ok_or_else(|| error.into());
    }
    let init = Packet {
        from: unused_port(),
        to: to.port(),
        tag: 0x6b75_6265,
        cookie: None,
    };
    exchange(&socket, &init.encode(), Deadline::after(timeout), |received| {
        let answer = Packet::decode(received, to.is_ipv4());
        let Some(cookie) = answer
            .filter(|a| a.to == init.from && a.tag == init.tag)
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
