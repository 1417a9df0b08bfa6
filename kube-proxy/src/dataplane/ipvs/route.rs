//! The routes by which the addresses of kube-ipvs0 are this node's own, by route netlink, while the device goes.
//!
//! As the kernel makes such a route, whatever a process of this host sends to the address has it as its source, too. As made
//! here, it has the source that packets to the world have, and so new connections do not need the address.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::model::object::Family;
use crate::netlink::{self, Attributes, Failure, Socket, attributes, begin_with, end, flag, nfproto};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_LOCAL: u8 = 255;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
/// Who made a route: anybody, the kernel, an administrator.
const RTPROT_UNSPEC: u8 = 0;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_STATIC: u8 = 4;
/// Length of `rtmsg`.
const HEADER: usize = 12;
/// The loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;
/// In IPv6 the kernel's own routes have 0 and win until they are gone; in IPv4 the route takes the place of the kernel's.
const METRIC: u32 = 1;
/// Addresses of nobody, by which one asks for the source of packets to the world.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// A socket for route netlink.
#[derive(Debug)]
pub(super) struct Routes {
    socket: Socket,
}

impl Routes {
    pub(super) fn open() -> Result<Self, Errno> {
        let socket = Socket::open_to(SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// Gives the addresses, which stay this node's own, the source of packets to the world. Without a way to the world
    /// nothing changes. Does it once more without harm.
    pub(super) fn set_source(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Errno> {
        let sources = [self.source(Family::V4)?, self.source(Family::V6)?];
        let mut bytes = Vec::new();
        let mut sequence = 0;
        for ip in addresses {
            let Some(source) = sources[Family::of(ip) as usize] else {
                continue;
            };
            sequence += 1;
            let made = flag::CREATE | if ip.is_ipv4() { flag::REPLACE } else { 0 };
            write(
                &mut bytes,
                (RTM_NEWROUTE, made, sequence),
                RTPROT_STATIC,
                ip,
                Some(source),
            );
            if ip.is_ipv6() {
                sequence += 1;
                write(&mut bytes, (RTM_DELROUTE, 0, sequence), RTPROT_KERNEL, ip, None);
            }
        }
        self.change(&bytes)
    }

    /// Removes what [`Routes::set_source`] made.
    pub(super) fn remove(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        for (sequence, ip) in (1..).zip(addresses) {
            write(&mut bytes, (RTM_DELROUTE, 0, sequence), RTPROT_STATIC, ip, None);
        }
        self.change(&bytes)
    }

    fn change(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let failures = self.socket.ask(bytes)?;
        // As it should be already.
        let resists = |failure: &&Failure| !matches!(failure.errno, Errno::EEXIST | Errno::ESRCH);
        failures
            .iter()
            .find(resists)
            .map_or(Ok(()), |failure| Err(failure.errno))
    }

    /// The source of packets to the world, if there is a way to it.
    fn source(&mut self, family: Family) -> Result<Option<IpAddr>, Errno> {
        let mut bytes = Vec::new();
        let start = begin_with(&mut bytes, RTM_GETROUTE, 0, 1, &header(family, RTPROT_UNSPEC));
        Attributes::at_end(&mut bytes).ip(RTA_DST, WORLD[family as usize]);
        end(&mut bytes, start);
        let mut source = None;
        self.socket
            .ask_for(&bytes, |_, route| source = preferred(route))?;
        Ok(source)
    }
}

/// `rtmsg` for a whole address in the table of this node's own.
fn header(family: Family, protocol: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (length, scope) = match family {
        Family::V4 => (32, RT_SCOPE_HOST),
        Family::V6 => (128, RT_SCOPE_UNIVERSE),
    };
    header[..2].copy_from_slice(&[nfproto(family), length]);
    header[4..8].copy_from_slice(&[RT_TABLE_LOCAL, protocol, scope, RTN_LOCAL]);
    header
}

/// Appends a request about the route to an address: the one with this source, or any that is `protocol`'s.
fn write(
    bytes: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    protocol: u8,
    ip: IpAddr,
    source: Option<IpAddr>,
) {
    let family = Family::of(ip);
    let start = begin_with(bytes, kind, flags, sequence, &header(family, protocol));
    let mut message = Attributes::at_end(bytes);
    message.ip(RTA_DST, ip);
    if let Some(source) = source {
        message.bytes(RTA_OIF, &LOOPBACK.to_ne_bytes());
        message.ip(RTA_PREFSRC, source);
        if family == Family::V6 {
            message.bytes(RTA_PRIORITY, &METRIC.to_ne_bytes());
        }
    }
    end(bytes, start);
}

/// The source that a route prefers.
fn preferred(route: &[u8]) -> Option<IpAddr> {
    let (_, value) = attributes(route.get(HEADER..)?).find(|(kind, _)| *kind == RTA_PREFSRC)?;
    netlink::ip(value)
}
