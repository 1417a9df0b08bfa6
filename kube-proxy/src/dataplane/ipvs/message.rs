//! Messages of IPVS: steps as requests, and what the kernel lists. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::entry::{At, Scheduler, Settings, Weight};
use super::steps::{Held, Step};
use crate::dataplane::nftables::Backend;
use crate::model::object::{Family, Protocol};
use crate::netlink::generic::Requests;
use crate::netlink::{Attributes, attributes};

/// Name of the family, as generic netlink knows it.
pub(super) const FAMILY: &str = "IPVS";

/// `enum` of the commands.
pub(super) mod command {
    pub(in super::super) const NEW_SERVICE: u8 = 1;
    pub(in super::super) const SET_SERVICE: u8 = 2;
    pub(in super::super) const DEL_SERVICE: u8 = 3;
    pub(in super::super) const GET_SERVICE: u8 = 4;
    pub(in super::super) const NEW_DEST: u8 = 5;
    pub(in super::super) const SET_DEST: u8 = 6;
    pub(in super::super) const DEL_DEST: u8 = 7;
    pub(in super::super) const GET_DEST: u8 = 8;
    pub(in super::super) const SET_CONFIG: u8 = 12;
}

const CMD_ATTR_SERVICE: u16 = 1;
const CMD_ATTR_DEST: u16 = 2;
const CMD_ATTR_TIMEOUT_TCP: u16 = 4;
const CMD_ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const CMD_ATTR_TIMEOUT_UDP: u16 = 6;
const SVC_ATTR_AF: u16 = 1;
const SVC_ATTR_PROTOCOL: u16 = 2;
const SVC_ATTR_ADDR: u16 = 3;
const SVC_ATTR_PORT: u16 = 4;
const SVC_ATTR_FWMARK: u16 = 5;
const SVC_ATTR_SCHED_NAME: u16 = 6;
const SVC_ATTR_FLAGS: u16 = 7;
const SVC_ATTR_TIMEOUT: u16 = 8;
const SVC_ATTR_NETMASK: u16 = 9;
const DEST_ATTR_ADDR: u16 = 1;
const DEST_ATTR_PORT: u16 = 2;
const DEST_ATTR_FWD_METHOD: u16 = 3;
const DEST_ATTR_WEIGHT: u16 = 4;
const DEST_ATTR_U_THRESH: u16 = 5;
const DEST_ATTR_L_THRESH: u16 = 6;
const DEST_ATTR_ACTIVE_CONNS: u16 = 7;
const DEST_ATTR_INACT_CONNS: u16 = 8;
const DEST_ATTR_ADDR_FAMILY: u16 = 11;

const IP_VS_SVC_F_PERSISTENT: u32 = 1;
/// The flags of a virtual server that mean something: persistent, one packet, and the three of schedulers. The kernel
/// has more for itself.
const MEANT_FLAGS: u32 = 0b11_1101;
/// `IP_VS_CONN_F_MASQ`: by rewriting addresses.
const BY_NAT: u32 = 0;

/// An endpoint as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) backend: Backend,
    pub(super) weight: Weight,
    /// Established connections that it has, and others: most of those have ended, and IPVS still remembers them.
    pub(super) active: u32,
    pub(super) inactive: u32,
}

/// Appends the request that takes a step, and returns its number.
pub(super) fn request(requests: &mut Requests, at: At, step: &Step) -> u32 {
    let (command, settings, endpoint) = match step {
        Step::NewServer(settings) => (command::NEW_SERVICE, Some(settings), None),
        Step::SetServer(settings) => (command::SET_SERVICE, Some(settings), None),
        Step::DeleteServer => (command::DEL_SERVICE, None, None),
        Step::NewEndpoint(backend, weight) => (command::NEW_DEST, None, Some((backend, Some(*weight)))),
        Step::SetEndpoint(backend, weight) => (command::SET_DEST, None, Some((backend, Some(*weight)))),
        Step::DeleteEndpoint(backend) => (command::DEL_DEST, None, Some((backend, None))),
    };
    requests.add(command, 0, |message| {
        message.nested(CMD_ATTR_SERVICE, |service| {
            identify(at, service);
            if let Some(settings) = settings {
                describe(Family::of(at.ip), settings, service);
            }
        });
        if let Some((backend, weight)) = endpoint {
            message.nested(CMD_ATTR_DEST, |dest| self::endpoint(backend, weight, dest));
        }
    })
}

/// Names the virtual server whose endpoints are to be listed.
pub(super) fn endpoints_of(at: At, message: &mut Attributes<'_>) {
    message.nested(CMD_ATTR_SERVICE, |service| identify(at, service));
}

/// How long IPVS remembers connections: of TCP, of TCP once they end, of UDP. `None` leaves it as it is.
pub(super) fn timeouts(requests: &mut Requests, timeouts: [Option<Duration>; 3]) {
    let kinds = [
        CMD_ATTR_TIMEOUT_TCP,
        CMD_ATTR_TIMEOUT_TCP_FIN,
        CMD_ATTR_TIMEOUT_UDP,
    ];
    requests.add(command::SET_CONFIG, 0, |message| {
        for (kind, timeout) in kinds.into_iter().zip(timeouts) {
            // The kernel wants all three, and takes zero for "as it is".
            let seconds = timeout.map_or(0, |timeout| timeout.as_secs());
            native32(message, kind, u32::try_from(seconds).unwrap_or(u32::MAX));
        }
    });
}

fn native32(message: &mut Attributes<'_>, kind: u16, value: u32) {
    message.bytes(kind, &value.to_ne_bytes());
}

fn identify(at: At, service: &mut Attributes<'_>) {
    service.bytes(SVC_ATTR_AF, &number(Family::of(at.ip)).to_ne_bytes());
    service.bytes(SVC_ATTR_PROTOCOL, &u16::from(at.protocol.number()).to_ne_bytes());
    service.bytes(SVC_ATTR_ADDR, &address(at.ip));
    service.bytes(SVC_ATTR_PORT, &at.port.to_be_bytes());
}

fn describe(family: Family, settings: &Settings, service: &mut Attributes<'_>) {
    let persistent = settings.persistence.map_or(0, |_| IP_VS_SVC_F_PERSISTENT);
    let flags = settings.scheduler.flags() | persistent;
    service.string(SVC_ATTR_SCHED_NAME, settings.scheduler.name());
    service.bytes(
        SVC_ATTR_FLAGS,
        &[flags.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat(),
    );
    native32(service, SVC_ATTR_TIMEOUT, settings.persistence.unwrap_or(0));
    native32(service, SVC_ATTR_NETMASK, single_client(family));
}

/// Each client for itself: a mask in IPv4, a prefix length in IPv6.
fn single_client(family: Family) -> u32 {
    match family {
        Family::V4 => u32::MAX,
        Family::V6 => 128,
    }
}

fn endpoint(backend: &Backend, weight: Option<Weight>, dest: &mut Attributes<'_>) {
    dest.bytes(DEST_ATTR_ADDR, &address(backend.ip));
    dest.bytes(DEST_ATTR_PORT, &backend.port.to_be_bytes());
    dest.bytes(
        DEST_ATTR_ADDR_FAMILY,
        &number(Family::of(backend.ip)).to_ne_bytes(),
    );
    if let Some(weight) = weight {
        native32(dest, DEST_ATTR_FWD_METHOD, BY_NAT);
        native32(dest, DEST_ATTR_WEIGHT, weight);
        native32(dest, DEST_ATTR_U_THRESH, 0);
        native32(dest, DEST_ATTR_L_THRESH, 0);
    }
}

/// `AF_INET`, `AF_INET6`.
fn number(family: Family) -> u16 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// `union nf_inet_addr`.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Reads a virtual server that the kernel lists, without its endpoints. None of those that go by a firewall mark,
/// which are another's in any case.
pub(super) fn server(entry: &[u8]) -> Option<(At, Held)> {
    let service = Fields::of(field(entry, CMD_ATTR_SERVICE)?);
    if service.number(SVC_ATTR_FWMARK).is_some_and(|mark| mark != 0) {
        return None;
    }
    let family = service.half(SVC_ATTR_AF)?;
    let protocol = service.half(SVC_ATTR_PROTOCOL)?;
    let at = At {
        ip: service.ip(SVC_ATTR_ADDR, family)?,
        protocol: Protocol::ALL
            .into_iter()
            .find(|known| u16::from(known.number()) == protocol)?,
        port: service.port(SVC_ATTR_PORT)?,
    };
    let name = service.bytes(SVC_ATTR_SCHED_NAME)?;
    let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned();
    let scheduler = Scheduler::named(name);
    let flags = service.number(SVC_ATTR_FLAGS)? & MEANT_FLAGS;
    let timeout = service.number(SVC_ATTR_TIMEOUT)?;
    let is_persistent = flags & IP_VS_SVC_F_PERSISTENT != 0;
    let netmask = service.number(SVC_ATTR_NETMASK)?;
    let held = Held {
        is_usual: flags & !IP_VS_SVC_F_PERSISTENT == scheduler.flags()
            && netmask == single_client(Family::of(at.ip)),
        settings: Settings {
            scheduler,
            persistence: is_persistent.then_some(timeout),
        },
        endpoints: BTreeMap::new(),
    };
    Some((at, held))
}

/// Reads an endpoint that the kernel lists, of a virtual server of this family.
pub(super) fn listed(entry: &[u8], family: Family) -> Option<Listed> {
    let dest = Fields::of(field(entry, CMD_ATTR_DEST)?);
    let family = dest.half(DEST_ATTR_ADDR_FAMILY).unwrap_or(number(family));
    Some(Listed {
        backend: Backend {
            ip: dest.ip(DEST_ATTR_ADDR, family)?,
            port: dest.port(DEST_ATTR_PORT)?,
        },
        weight: dest.number(DEST_ATTR_WEIGHT)?,
        active: dest.number(DEST_ATTR_ACTIVE_CONNS)?,
        inactive: dest.number(DEST_ATTR_INACT_CONNS)?,
    })
}

fn field(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The attributes of one entry.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        field(self.0, kind)
    }

    fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.bytes(kind)?.first_chunk()?))
    }

    fn half(&self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.bytes(kind)?.first_chunk()?))
    }

    fn port(&self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(*self.bytes(kind)?.first_chunk()?))
    }

    fn ip(&self, kind: u16, family: u16) -> Option<IpAddr> {
        let bytes: [u8; 16] = *self.bytes(kind)?.first_chunk()?;
        if family == number(Family::V4) {
            let [a, b, c, d, ..] = bytes;
            Some(Ipv4Addr::new(a, b, c, d).into())
        } else {
            Some(Ipv6Addr::from(bytes).into())
        }
    }
}
