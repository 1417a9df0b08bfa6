//! SCTP requests from new ports.

mod begun;
mod established;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use self::begun::Begun;
use self::established::Established;
use super::Outcome;
use super::socket::Deadline;
use crate::sctp::has_sockets;

/// A port that is kept, from which an association is asked for, or over which one goes on.
#[derive(Debug)]
pub(super) enum Association {
    /// As far as an association gets without SCTP sockets.
    Begun(Begun),
    /// A real one.
    Established(Established),
}

/// One request, and the end of the association.
pub(super) fn request(to: SocketAddr, timeout: Duration) -> io::Result<Outcome> {
    match associate(to)? {
        Ok(association) => association.converse(Deadline::after(timeout)),
        Err(outcome) => Ok(outcome),
    }
}

/// A port to associate from; nothing is sent yet.
pub(super) fn associate(to: SocketAddr) -> io::Result<Result<Association, Outcome>> {
    Ok(if has_sockets() {
        established::associate(to)?.map(Association::Established)
    } else {
        begun::associate(to)?.map(Association::Begun)
    })
}

impl Association {
    /// Asks once, from the thread's own namespace, which must be the one where this was made.
    pub(super) fn converse(&self, deadline: Deadline) -> io::Result<Outcome> {
        match self {
            Self::Begun(begun) => begun.converse(deadline),
            Self::Established(established) => established.converse(deadline),
        }
    }
}
