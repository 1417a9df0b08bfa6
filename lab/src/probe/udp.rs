//! A request in a UDP datagram from a new port.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockProtocol, SockType, recv, send};

use super::Outcome;
use super::socket::{Deadline, bind_unused, connect, open, outcome_of};

/// Sends one datagram and waits for the answer.
pub(super) fn request(to: SocketAddr, timeout: Duration) -> io::Result<Outcome> {
    match associate(to)? {
        Ok(socket) => converse(&socket, Deadline::after(timeout)),
        Err(outcome) => Ok(outcome),
    }
}

/// A socket that talks to one address only, and so learns of errors from there.
pub(super) fn associate(to: SocketAddr) -> io::Result<Result<OwnedFd, Outcome>> {
    let socket = open(to.ip(), SockType::Datagram, Some(SockProtocol::Udp))?;
    bind_unused(&socket, to.ip())?;
    match connect(&socket, to) {
        Ok(()) => Ok(Ok(socket)),
        Err(error) => outcome_of(&socket, error).map(Err).ok_or_else(|| error.into()),
    }
}

/// Sends one datagram through a socket and waits for the answer.
pub(super) fn converse(socket: &OwnedFd, deadline: Deadline) -> io::Result<Outcome> {
    exchange(socket, b"hello", deadline, |answer| {
        String::from_utf8_lossy(answer)
            .parse()
            .map(|answer| Some(Outcome::Ok(answer)))
            .map_err(io::Error::other)
    })
}

/// Sends one packet through a connected socket, and reads what comes back or the error that comes instead. A
/// packet that `read` has no use for is passed over.
pub(super) fn exchange(
    socket: &OwnedFd,
    packet: &[u8],
    deadline: Deadline,
    read: impl Fn(&[u8]) -> io::Result<Option<Outcome>>,
) -> io::Result<Outcome> {
    match send(socket.as_raw_fd(), packet, MsgFlags::empty()) {
        // EPERM: a rule of this very host dropped it. If the rule also rejects, that error comes next.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return outcome_of(socket, error).ok_or_else(|| error.into()),
    }
    loop {
        if !deadline.wait(socket, PollFlags::POLLIN)? {
            return Ok(Outcome::Timeout);
        }
        let mut buffer = [0; 2048];
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                if let Some(outcome) = read(&buffer[..length])? {
                    return Ok(outcome);
                }
            }
            Err(Errno::EAGAIN) => {}
            Err(error) => return outcome_of(socket, error).ok_or_else(|| error.into()),
        }
    }
}
