//! The dummy device whose addresses make packets to Services arrive at this node, where IPVS sees them, by route
//! netlink.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::model::object::Family;
use crate::netlink::{self, Attributes, Failure, Socket, attributes, begin_with, end, flag, nfproto};

/// Name of the device; upstream's, so that either takes over from the other.
pub(super) const DEVICE: &str = "kube-ipvs0";

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
/// Nobody is asked whether an IPv6 address is theirs: every node has it.
const IFA_F_NODAD: u8 = 2;
/// `ifa_cacheinfo`: never preferred, valid for ever, and two times that the kernel fills in.
const DEPRECATED: [u32; 4] = [0, u32::MAX, 0, 0];
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;
/// Length of `ifinfomsg` and of `ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// The number of the device, if it is there. What is on it is nobody's own address.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn index() -> Result<Option<u32>, Errno> {
    find(&mut Socket::open_to(SockProtocol::NetlinkRoute)?)
}

/// A socket for route netlink, and the device once it is there.
#[derive(Debug)]
pub(super) struct Device {
    socket: Socket,
    index: Option<u32>,
}

impl Device {
    pub(super) fn open() -> Result<Self, Errno> {
        let mut socket = Socket::open_to(SockProtocol::NetlinkRoute)?;
        let index = find(&mut socket)?;
        Ok(Self { socket, index })
    }

    /// Whether it was there when it was last looked for.
    pub(super) fn is_there(&self) -> bool {
        self.index.is_some()
    }

    /// Its number, if it was there when it was last looked for.
    pub(super) fn index(&self) -> Option<u32> {
        self.index
    }

    /// The port by which the kernel knows whose changes are this socket's.
    pub(super) fn port(&self) -> Result<u32, Errno> {
        self.socket.port()
    }

    /// Looks for it.
    pub(super) fn find(&mut self) -> Result<(), Errno> {
        self.index = find(&mut self.socket)?;
        Ok(())
    }

    /// Makes the device unless it is there. It stays down: its addresses are this node's all the same, and IPv6 gives
    /// it none of its own.
    pub(super) fn make(&mut self) -> Result<(), Errno> {
        self.find()?;
        if self.index.is_none() {
            let failures = self.socket.ask(&new_link())?;
            if let Some(failure) = failures.first().filter(|failure| failure.errno != Errno::EEXIST) {
                return Err(failure.errno);
            }
            self.find()?;
        }
        self.index.map(drop).ok_or(Errno::ENODEV)
    }

    /// Removes the device with its addresses; whether it was there.
    pub(super) fn remove(&mut self) -> Result<bool, Errno> {
        let Some(index) = self.index.take() else {
            return Ok(false);
        };
        let mut bytes = Vec::new();
        let start = begin_with(&mut bytes, RTM_DELLINK, 0, 1, &link_header(index));
        end(&mut bytes, start);
        let failures = self.socket.ask(&bytes)?;
        match failures.first() {
            Some(failure) if failure.errno != Errno::ENODEV => Err(failure.errno),
            _ => Ok(true),
        }
    }

    /// The addresses on it.
    pub(super) fn addresses(&mut self) -> Result<BTreeSet<IpAddr>, Errno> {
        let Some(index) = self.index else {
            return Ok(BTreeSet::new());
        };
        let mut bytes = Vec::new();
        let start = begin_with(&mut bytes, RTM_GETADDR, flag::DUMP, 1, &[0; ADDRESS_HEADER]);
        end(&mut bytes, start);
        let mut addresses = BTreeSet::new();
        self.socket.dump(&bytes, |entry| {
            addresses.extend(address(entry).filter(|(on, _)| *on == index).map(|(_, ip)| ip));
        })?;
        Ok(addresses)
    }

    /// Adds addresses, and removes others; the kernel's complaints, numbered by the order of both.
    pub(super) fn change(&mut self, added: &[IpAddr], removed: &[IpAddr]) -> Result<Vec<Failure>, Errno> {
        let Some(index) = self.index else {
            return Err(Errno::ENODEV);
        };
        let mut bytes = Vec::new();
        let added = added.iter().map(|ip| (RTM_NEWADDR, flag::CREATE, *ip));
        let removed = removed.iter().map(|ip| (RTM_DELADDR, 0, *ip));
        for (sequence, (kind, flags, ip)) in (1..).zip(added.chain(removed)) {
            change(&mut bytes, (kind, flags, sequence), index, ip);
        }
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let mut failures = self.socket.ask(&bytes)?;
        // As it should be already.
        failures.retain(|failure| !matches!(failure.errno, Errno::EEXIST | Errno::EADDRNOTAVAIL));
        Ok(failures)
    }
}

/// The index of the device, if it is there.
fn find(socket: &mut Socket) -> Result<Option<u32>, Errno> {
    let mut bytes = Vec::new();
    // The acknowledgement ends the answer.
    let start = begin_with(&mut bytes, RTM_GETLINK, flag::ACK, 1, &link_header(0));
    Attributes::at_end(&mut bytes).string(IFLA_IFNAME, DEVICE);
    end(&mut bytes, start);
    let mut index = None;
    let found = socket.dump(&bytes, |link| index = index_of(link));
    match found {
        Err(Errno::ENODEV) => Ok(None),
        found => found.map(|()| index),
    }
}

/// The index of a link that is told of.
pub(super) fn index_of(link: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*link.get(4..)?.first_chunk()?))
}

/// `ifinfomsg`.
fn link_header(index: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn new_link() -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin_with(
        &mut bytes,
        RTM_NEWLINK,
        flag::CREATE | flag::EXCL,
        1,
        &link_header(0),
    );
    let mut message = Attributes::at_end(&mut bytes);
    message.string(IFLA_IFNAME, DEVICE);
    message.nested(IFLA_LINKINFO, |info| info.bytes(IFLA_INFO_KIND, b"dummy"));
    end(&mut bytes, start);
    bytes
}

/// Appends a request about one address. The node must not take it for the source of its own or of masqueraded packets,
/// which it might for an interface that has no address itself; so in IPv4 its scope is the host, and in IPv6 it is
/// deprecated.
pub(super) fn change(bytes: &mut Vec<u8>, (kind, flags, sequence): (u16, u16, u32), index: u32, ip: IpAddr) {
    let family = Family::of(ip);
    let (length, address_flags, scope) = match family {
        Family::V4 => (32, 0, RT_SCOPE_HOST),
        Family::V6 => (128, IFA_F_NODAD, RT_SCOPE_UNIVERSE),
    };
    let mut header = [0; ADDRESS_HEADER];
    header[..4].copy_from_slice(&[nfproto(family), length, address_flags, scope]);
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let start = begin_with(bytes, kind, flags, sequence, &header);
    let mut message = Attributes::at_end(bytes);
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        message.ip(kind, ip);
    }
    if family == Family::V6 {
        message.written(IFA_CACHEINFO, |bytes| {
            bytes.extend(DEPRECATED.iter().flat_map(|number| number.to_ne_bytes()));
        });
    }
    end(bytes, start);
}

/// The interface and the address of an entry.
pub(super) fn address(entry: &[u8]) -> Option<(u32, IpAddr)> {
    let (header, rest) = entry.split_first_chunk::<ADDRESS_HEADER>()?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let mut all = attributes(rest).filter(|(kind, _)| matches!(*kind, IFA_LOCAL | IFA_ADDRESS));
    let (_, value) = all.next()?;
    Some((index, netlink::ip(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["10.96.0.1", "fd00::1"] {
            let ip = text.parse().unwrap();
            let mut bytes = Vec::new();
            change(&mut bytes, (RTM_NEWADDR, flag::CREATE, 7), 42, ip);
            assert_eq!(address(&bytes[16..]), Some((42, ip)));
            // A /32 of scope host, or a /128 at once.
            let expected = if ip.is_ipv4() {
                [2, 32, 0, 254]
            } else {
                [10, 128, 2, 0]
            };
            assert_eq!(&bytes[16..20], &expected);
        }
    }
}
