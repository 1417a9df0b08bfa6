//! TCP handshakes through a Service, and which pod took them, without a server's thread in between: the caller
//! holds both ends. What is measured so is the kernel's work, not the scheduler's.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockProtocol, SockType, SockaddrStorage, getsockname, setsockopt, sockopt};
use std::os::fd::{AsRawFd, OwnedFd};

use super::socket::{Deadline, connect, open, pending_error};
use crate::net::Namespace;

/// Listens on a port of every address that a pod calls its own, routes of type `local` included.
#[derive(Debug)]
pub struct Door(TcpListener);

/// A handshake that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// By which of the doors.
    pub door: usize,
    /// The address that the packet had when it reached the pod: the endpoint.
    pub endpoint: SocketAddr,
    /// When it was seen to be taken.
    pub at: Instant,
}

impl Door {
    /// Opens a door.
    ///
    /// # Errors
    /// When the port is taken or the namespace cannot be entered.
    pub fn open(pod: &Namespace, port: u16) -> io::Result<Self> {
        let listener = pod.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))??;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }
}

/// Knocks once from the thread's own namespace: a handshake from a new port, broken off as soon as it is taken.
/// `None` when nobody took it within the patience, or it was refused.
///
/// # Errors
/// When there is no socket to be had. What the network does is not an error.
pub fn knock(at: SocketAddr, doors: &[Door], patience: Duration) -> io::Result<Option<Taken>> {
    let deadline = Deadline::after(patience);
    let socket = open(at.ip(), SockType::Stream, Some(SockProtocol::Tcp))?;
    // A reset rather than a farewell: nothing lingers on either side, and conntrack forgets sooner.
    setsockopt(
        &socket,
        sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )?;
    let connected = match connect(&socket, at) {
        Ok(()) => true,
        Err(Errno::EINPROGRESS) => {
            deadline.wait(&socket, PollFlags::POLLOUT)? && pending_error(&socket)?.is_none()
        }
        Err(_) => false,
    };
    if connected {
        taken(&socket, doors, deadline)
    } else {
        Ok(None)
    }
}

/// Waits for the door where a connected socket's other end comes up.
fn taken(socket: &OwnedFd, doors: &[Door], deadline: Deadline) -> io::Result<Option<Taken>> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = name.as_sockaddr_in().map(|a| a.port());
    let port = port.or_else(|| name.as_sockaddr_in6().map(|a| a.port()));
    loop {
        for (door, listener) in doors.iter().enumerate() {
            // Other ports are those of knocks that lost patience after the handshake.
            while let Some((stream, peer)) = accept(&listener.0)? {
                if Some(peer.port()) == port {
                    let at = Instant::now();
                    let endpoint = stream.local_addr()?;
                    let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
                    return Ok(Some(Taken { door, endpoint, at }));
                }
            }
        }
        if deadline.left().is_zero() {
            return Ok(None);
        }
        let mut events: Vec<_> = doors
            .iter()
            .map(|d| PollFd::new(d.0.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut events, PollTimeout::from(1_u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<(std::net::TcpStream, SocketAddr)>> {
    match listener.accept() {
        Ok(accepted) => Ok(Some(accepted)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // A connection that was reset before it was taken.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Family, Lab, Topology, address};

    #[test]
    fn a_knock_tells_which_pod_took_it_at_which_address_and_one_that_nobody_takes_is_none() {
        let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1), ("c", 2)])).unwrap();
        let namespace = |name| &lab.member(name).unwrap().namespace;
        let doors = ["a", "c"].map(|name| Door::open(namespace(name), 8080).unwrap());
        for family in Family::ALL {
            let knock_for = |patience, ip, port| {
                let at = SocketAddr::new(ip, port);
                let taken = namespace("b")
                    .enter(|| knock(at, &doors, patience))
                    .unwrap()
                    .unwrap();
                taken.map(|taken| (taken.door, taken.endpoint))
            };
            let knock = |ip, port| knock_for(Duration::from_secs(10), ip, port);
            let [a, c] = [address::pod(1, 1, family), address::pod(2, 1, family)];
            assert_eq!(knock(a, 8080), Some((0, SocketAddr::new(a, 8080))));
            assert_eq!(knock(c, 8080), Some((1, SocketAddr::new(c, 8080))));
            assert_eq!(knock(c, 8081), None);
            let nobody = address::pod(1, 77, family);
            assert_eq!(knock_for(Duration::from_millis(100), nobody, 8080), None);
        }
    }
}
