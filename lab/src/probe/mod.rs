//! Real requests and what became of them.
//!
//! Everything here blocks its thread, for at most the timeout given. A probe makes a new socket, and so a new
//! connection for conntrack, unless it says otherwise.

mod connection;
mod knock;
mod ping;
mod sctp;
mod shares;
mod socket;
mod steady;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod uniformity;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::net::Namespace;
use crate::serve::Answer;

pub use connection::Connection;
pub use knock::{Door, Taken, knock};
pub use shares::Shares;
pub use steady::{Steady, SteadyReport};
pub use uniformity::Uniformity;

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A TCP connection, one line each way.
    Tcp,
    /// A UDP datagram each way.
    Udp,
    /// An SCTP association, one line each way; an INIT and an INIT ACK, if the kernel has no SCTP sockets.
    Sctp,
    /// An ICMP echo request; the port means nothing.
    Ping,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Ping => "ping",
        })
    }
}

/// One request to make.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// How.
    pub protocol: Protocol,
    /// Whom.
    pub to: SocketAddr,
    /// When to give up, counted from the first packet to the complete answer.
    pub timeout: Duration,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server of the lab answered.
    Ok(Answer),
    /// An ICMP echo reply came from this address.
    Pong(IpAddr),
    /// Refused actively.
    Refused(RefusedBy),
    /// Nothing came back in time. That includes what the own host's rules dropped.
    Timeout,
    /// No way there: the reason, e.g. `no route to host`.
    Unreachable(String),
    /// Connected, but then cut off without an answer: the reason.
    Cut(String),
}

/// What a refusal consisted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// A TCP reset or SCTP ABORT: the packet reached a host where nobody listens.
    Reset,
    /// An ICMP port-unreachable: a rule rejected the packet, or it reached a host without that UDP port.
    Icmp,
}

impl Outcome {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Ok(answer) => Some(answer),
            _ => None,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok(answer) => write!(
                f,
                "ok by {} (port {}), seen as {}",
                answer.server,
                answer.port,
                answer.seen_as()
            ),
            Self::Pong(from) => write!(f, "pong from {from}"),
            Self::Refused(RefusedBy::Reset) => f.write_str("refused (reset by a host)"),
            Self::Refused(RefusedBy::Icmp) => f.write_str("refused (ICMP port unreachable)"),
            Self::Timeout => f.write_str("timeout"),
            Self::Unreachable(reason) => write!(f, "unreachable ({reason})"),
            Self::Cut(reason) => write!(f, "connected, then cut off ({reason})"),
        }
    }
}

/// Makes one request from a namespace.
///
/// # Errors
/// When no request could be made at all (no socket, no namespace). What the network does to it is an
/// [`Outcome`].
pub fn request(from: &Namespace, request: Request) -> io::Result<Outcome> {
    from.enter(|| here(request))?
}

/// Makes `count` requests, one after the other, and counts who answered.
///
/// # Errors
/// As [`request`].
pub fn requests(from: &Namespace, request: Request, count: usize) -> io::Result<Shares> {
    from.enter(|| {
        let mut shares = Shares::default();
        for _ in 0..count {
            shares.count(&here(request)?);
        }
        Ok(shares)
    })?
}

/// Makes requests, one after the other, until `enough` says so or `most` are made; returns all outcomes.
///
/// # Errors
/// As [`request`].
pub fn requests_until(
    from: &Namespace,
    request: Request,
    most: usize,
    mut enough: impl FnMut(&[Outcome]) -> bool + Send,
) -> io::Result<Vec<Outcome>> {
    from.enter(|| {
        let mut outcomes = Vec::new();
        while outcomes.len() < most && !enough(&outcomes) {
            outcomes.push(here(request)?);
        }
        Ok(outcomes)
    })?
}

/// Makes one request from the thread's own namespace.
fn here(request: Request) -> io::Result<Outcome> {
    match request.protocol {
        Protocol::Tcp => tcp::request(request.to, request.timeout),
        Protocol::Udp => udp::request(request.to, request.timeout),
        Protocol::Sctp => sctp::request(request.to, request.timeout),
        Protocol::Ping => ping::request(request.to.ip(), request.timeout),
    }
}
