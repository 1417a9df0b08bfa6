//! The addresses of this machine's interfaces, as they come and go.
//!
//! rtnetlink's notifications only wake: what is told is always a whole list that was read after them. So nothing
//! depends on whether every notification arrived (the kernel drops them when they pile up, and says so).

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::{Receiver, Sender, channel};
use tracing::warn;

use crate::dataplane::ipvs;
use crate::netlink::{attributes, complaint, ip, messages};

/// All addresses of this machine's own interfaces (not those that the IPVS mode adds for Services), sorted, each once, whatever their state: secondary, temporary,
/// deprecated and tentative ones too. Clones are told of the same changes.
pub type LocalAddresses = Receiver<Arc<[IpAddr]>>;

/// Pause before a list that could not be read is read again.
const PAUSE: Duration = Duration::from_secs(1);
/// The kernel makes the parts of a list no longer than this.
const LONGEST_PART: usize = 32 << 10;
const NLMSG_HEADER: usize = 16;
/// `ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// Begins to watch the network namespace of this thread. The future keeps the list up to date.
pub fn watch() -> (LocalAddresses, impl Future<Output = Infallible>) {
    // Before the list is read, so that no change falls between the two.
    let notifications = subscribe();
    let first = list().unwrap_or_else(|err| {
        warn!(%err, "Cannot list the addresses of this node");
        Vec::new()
    });
    let (sender, receiver) = channel(first.into());
    let following = async move {
        let ended = match notifications {
            Ok(socket) => follow(socket, &sender).await,
            Err(err) => Err(err.into()),
        };
        let Err(err) = ended;
        warn!(%err, "Cannot be told of changed addresses of this node; going on with those that are known");
        std::future::pending().await
    };
    (receiver, following)
}

/// A socket that is told when an address comes or goes.
fn subscribe() -> Result<OwnedFd, Errno> {
    let socket = open(SockFlag::SOCK_NONBLOCK)?;
    let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
    Ok(socket)
}

fn open(flags: SockFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )
}

/// Tells the list whenever it is another one than before.
async fn follow(socket: OwnedFd, sender: &Sender<Arc<[IpAddr]>>) -> io::Result<Infallible> {
    let socket = register(socket)?;
    loop {
        match list() {
            Ok(addresses) => {
                sender.send_if_modified(|told| {
                    let differs = **told != *addresses;
                    if differs {
                        *told = addresses.into();
                    }
                    differs
                });
                notified(&socket).await?;
            }
            Err(err) => {
                warn!(%err, "Cannot list the addresses of this node; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// To be waited for by the runtime of this thread.
///
/// # Errors
/// When the kernel has no room for it.
#[expect(unsafe_code, reason = "tokio asks for a descriptor that stays the same")]
pub(crate) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is an open descriptor, always the same, and nobody closes it before it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(registered?)
}

/// Waits for a notification, and takes all that are there.
async fn notified(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut notification = [0; 256];
    let mut ready = socket.readable().await?;
    // The first that finds nothing more makes the socket wait again.
    while let Ok(read) = ready.try_io(|socket| {
        let read = socket::recv(socket.as_raw_fd(), &mut notification, MsgFlags::empty());
        read.map_err(io::Error::from)
    }) {
        match read {
            // Some were dropped; more may follow.
            Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {}
            read => _ = read?,
        }
    }
    Ok(())
}

/// Reads all addresses.
fn list() -> Result<Vec<IpAddr>, Errno> {
    let socket = open(SockFlag::empty())?;
    socket::sendto(
        socket.as_raw_fd(),
        &request(),
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let of_services = ipvs::index()?;
    let mut addresses = Vec::new();
    let mut part = vec![0; LONGEST_PART];
    loop {
        // The kernel makes each part while the one before it is taken, so there is nothing to wait for.
        let length = socket::recv(socket.as_raw_fd(), &mut part, MsgFlags::MSG_DONTWAIT)?;
        if take_in(&part[..length], of_services, &mut addresses)? {
            addresses.sort_unstable();
            addresses.dedup();
            return Ok(addresses);
        }
    }
}

/// Takes in the addresses of one part of the list; whether it is the last part.
fn take_in(part: &[u8], of_services: Option<u32>, addresses: &mut Vec<IpAddr>) -> Result<bool, Errno> {
    for message in messages(part) {
        let (kind, body) = (message.kind, message.body());
        match i32::from(kind) {
            libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                return complaint(body).map_or(Ok(true), Err);
            }
            _ if kind == libc::RTM_NEWADDR => addresses.extend(address(body, of_services)),
            _ => {}
        }
    }
    Ok(false)
}

/// The request for the addresses of all families.
fn request() -> Vec<u8> {
    let length = NLMSG_HEADER + ADDRESS_HEADER;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_ne_bytes());
    bytes.extend_from_slice(&libc::RTM_GETADDR.to_ne_bytes());
    bytes.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    // Neither sequence number, sender, nor anything that the list would be restricted to.
    bytes.resize(length, 0);
    bytes
}

/// The node's own address of an entry; on a point-to-point link the entry also has the other end's. `None` for those
/// of one interface.
fn address(entry: &[u8], without: Option<u32>) -> Option<IpAddr> {
    let family = i32::from(*entry.first()?);
    let interface = u32::from_ne_bytes(*entry.get(4..)?.first_chunk()?);
    if !matches!(family, libc::AF_INET | libc::AF_INET6) || without == Some(interface) {
        return None;
    }
    let (mut own, mut any) = (None, None);
    for (kind, value) in attributes(entry.get(ADDRESS_HEADER..)?) {
        match kind {
            libc::IFA_LOCAL => own = ip(value),
            libc::IFA_ADDRESS => any = ip(value),
            _ => {}
        }
    }
    own.or(any)
}
