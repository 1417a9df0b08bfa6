//! A request over a new TCP connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockProtocol, SockType, send, setsockopt, sockopt};
use std::os::fd::AsRawFd;

use super::Outcome;
use super::socket::{Deadline, bind_unused, connected, open, outcome_of};

/// Connects, asks, reads the answer, closes.
pub(super) fn request(to: SocketAddr, timeout: Duration) -> io::Result<Outcome> {
    let deadline = Deadline::after(timeout);
    match establish(to, deadline)? {
        Ok(socket) => converse(&socket, "hello", deadline),
        Err(outcome) => Ok(outcome),
    }
}

/// Connects; the inner error is what became of it instead.
pub(super) fn establish(to: SocketAddr, deadline: Deadline) -> io::Result<Result<OwnedFd, Outcome>> {
    let socket = open(to.ip(), SockType::Stream, Some(SockProtocol::Tcp))?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    bind_unused(&socket, to.ip())?;
    match connected(&socket, to, deadline)? {
        None => Ok(Err(Outcome::Timeout)),
        Some(Ok(())) => Ok(Ok(socket)),
        Some(Err(error)) => outcome_of(&socket, error).map(Err).ok_or_else(|| error.into()),
    }
}

/// Sends one line over an open connection and reads one.
pub(super) fn converse(socket: &OwnedFd, line: &str, deadline: Deadline) -> io::Result<Outcome> {
    let asked = format!("{line}\n");
    if let Err(error) = send(socket.as_raw_fd(), asked.as_bytes(), MsgFlags::MSG_NOSIGNAL) {
        return Ok(Outcome::Cut(error.desc().to_lowercase()));
    }
    let mut received = Vec::new();
    loop {
        if !deadline.wait(socket, PollFlags::POLLIN)? {
            return Ok(Outcome::Timeout);
        }
        let mut buffer = [0; 512];
        match nix::unistd::read(socket, &mut buffer) {
            Ok(0) => return Ok(Outcome::Cut("closed by the other side".to_owned())),
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(Errno::EAGAIN) => {}
            Err(error) => return Ok(Outcome::Cut(error.desc().to_lowercase())),
        }
        if received.ends_with(b"\n") {
            let answer = String::from_utf8_lossy(&received);
            return answer.parse().map(Outcome::Ok).map_err(io::Error::other);
        }
    }
}
