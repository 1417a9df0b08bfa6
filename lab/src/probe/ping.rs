//! An ICMP echo request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{SockProtocol, SockType};

use super::Outcome;
use super::socket::{Deadline, connect, open, outcome_of};
use super::udp::exchange;

/// Sends one echo request through an ICMP socket (the kernel fills in identifier and checksum).
pub(super) fn request(to: IpAddr, timeout: Duration) -> io::Result<Outcome> {
    let (protocol, echo_request) = match to {
        IpAddr::V4(_) => (SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (SockProtocol::IcmpV6, 128),
    };
    let socket = open(to, SockType::Datagram, Some(protocol))?;
    if let Err(error) = connect(&socket, SocketAddr::new(to, 0)) {
        return outcome_of(&socket, error).ok_or_else(|| error.into());
    }
    let packet = [echo_request, 0, 0, 0, 0, 0, 0, 1];
    exchange(&socket, &packet, Deadline::after(timeout), |_| {
        Ok(Some(Outcome::Pong(to)))
    })
}
