//! What the kinds of probes share: a non-blocking socket that learns of ICMP errors, and waiting with a deadline.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    SockaddrLike, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use super::{Outcome, RefusedBy};

/// A non-blocking socket of the thread's namespace with ICMP errors switched on.
pub(super) fn open(to: IpAddr, kind: SockType, protocol: Option<SockProtocol>) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(family, kind, flags, protocol)?;
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(socket)
}

/// `connect`, in whichever family the address has.
pub(super) fn connect(socket: &OwnedFd, to: SocketAddr) -> nix::Result<()> {
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
}

/// Connects and waits for the end of that: the error that it ended with, if any. `None`: it did not end in time.
pub(super) fn connected(
    socket: &OwnedFd,
    to: SocketAddr,
    deadline: Deadline,
) -> io::Result<Option<Result<(), Errno>>> {
    match connect(socket, to) {
        Err(Errno::EINPROGRESS) if !deadline.wait(socket, PollFlags::POLLOUT)? => Ok(None),
        Err(Errno::EINPROGRESS) => Ok(Some(pending_error(socket)?.map_or(Ok(()), Err))),
        ended => Ok(Some(ended)),
    }
}

/// The next source port, none twice in 28,000 requests: conntrack remembers UDP flows for minutes, and a request
/// from a port that was used before would follow an old entry instead of the rules. IPVS remembers TCP connections, too, and
/// takes answers to one port for those to an earlier request from it, if that went to the same endpoint by another address.
pub(super) fn unused_port() -> u16 {
    const FIRST: u16 = 32768;
    const COUNT: u16 = 28000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let following = |offset| Some((offset + 1) % COUNT);
    FIRST
        + NEXT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, following)
            .unwrap_or_default()
}

/// Binds a socket to the next source port that is free.
pub(super) fn bind_unused(socket: &OwnedFd, to: IpAddr) -> nix::Result<()> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    loop {
        let at = SockaddrStorage::from(SocketAddr::new(any, unused_port()));
        match nix::sys::socket::bind(socket.as_raw_fd(), &at) {
            Err(Errno::EADDRINUSE) => {}
            bound => return bound,
        }
    }
}

/// The kernel's pending error of a socket.
pub(super) fn pending_error(socket: &OwnedFd) -> io::Result<Option<Errno>> {
    let error = nix::sys::socket::getsockopt(socket, sockopt::SocketError)?;
    Ok((error != 0).then(|| Errno::from_raw(error)))
}

/// A point in time until which to wait.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// So long from now, but not after this one.
    pub(super) fn at_most(self, timeout: Duration) -> Self {
        Self(self.0.min(Instant::now() + timeout))
    }

    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Waits for events or an error; `false` when the time is over.
    pub(super) fn wait(self, socket: &OwnedFd, events: PollFlags) -> io::Result<bool> {
        loop {
            // Rounded up, so that the last millisecond is not spent spinning.
            let left = i32::try_from(self.left().as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(socket.as_fd(), events)], timeout) {
                Ok(0) if self.left().is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What an error of a socket says about the request; `None` for errors that say nothing about the network.
pub(super) fn outcome_of(socket: &OwnedFd, error: Errno) -> Option<Outcome> {
    match error {
        Errno::ECONNREFUSED if icmp_queued(socket) => Some(Outcome::Refused(RefusedBy::Icmp)),
        Errno::ECONNREFUSED => Some(Outcome::Refused(RefusedBy::Reset)),
        Errno::ETIMEDOUT => Some(Outcome::Timeout),
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENOPROTOOPT | Errno::EPROTO | Errno::EACCES => {
            Some(Outcome::Unreachable(error.desc().to_lowercase()))
        }
        _ => None,
    }
}

/// Whether the error queue holds an ICMP message. Takes one from it.
fn icmp_queued(socket: &OwnedFd) -> bool {
    fn read<S: SockaddrLike>(socket: &OwnedFd) -> bool {
        let mut data = [0; 512];
        let mut slices = [IoSliceMut::new(&mut data)];
        let mut control = nix::cmsg_space!([u8; 256]);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<S>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags);
        message
            .and_then(|m| m.cmsgs().map(|mut all| all.any(|c| is_icmp(&c))))
            .unwrap_or(false)
    }
    read::<SockaddrIn>(socket) || read::<SockaddrIn6>(socket)
}

fn is_icmp(message: &ControlMessageOwned) -> bool {
    use libc::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6};
    match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) => error.ee_origin == SO_EE_ORIGIN_ICMP,
        ControlMessageOwned::Ipv6RecvErr(error, _) => error.ee_origin == SO_EE_ORIGIN_ICMP6,
        _ => false,
    }
}
