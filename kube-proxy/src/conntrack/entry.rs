//! One entry of the kernel's table of tracked flows, as messages show it: its attributes, and the two tuples that name it.

use std::net::SocketAddr;

use crate::model::object::Protocol;
use crate::netlink::{Attributes, attributes, ip};

/// `nfgenmsg`, before the attributes.
const NFGENMSG: usize = 4;

/// `enum ctattr_type`.
pub(super) mod attribute {
    pub(in crate::conntrack) const TUPLE_ORIG: u16 = 1;
    pub(in crate::conntrack) const TUPLE_REPLY: u16 = 2;
    pub(in crate::conntrack) const STATUS: u16 = 3;
    pub(in crate::conntrack) const PROTOINFO: u16 = 4;
    pub(in crate::conntrack) const NAT_SRC: u16 = 6;
    pub(in crate::conntrack) const TIMEOUT: u16 = 7;
    pub(in crate::conntrack) const MARK: u16 = 8;
    pub(in crate::conntrack) const COUNTERS_ORIG: u16 = 9;
    pub(in crate::conntrack) const COUNTERS_REPLY: u16 = 10;
    pub(in crate::conntrack) const ID: u16 = 12;
    pub(in crate::conntrack) const NAT_DST: u16 = 13;
    pub(in crate::conntrack) const ZONE: u16 = 18;
    pub(in crate::conntrack) const LABELS: u16 = 22;
    pub(in crate::conntrack) const FILTER: u16 = 25;
}

/// Attributes of a tuple (`enum ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`).
pub(super) mod tuple {
    pub(in crate::conntrack) const IP: u16 = 1;
    pub(in crate::conntrack) const PROTO: u16 = 2;
    pub(in crate::conntrack) const ZONE: u16 = 3;
    pub(in crate::conntrack) const V4_SRC: u16 = 1;
    pub(in crate::conntrack) const V4_DST: u16 = 2;
    pub(in crate::conntrack) const V6_SRC: u16 = 3;
    pub(in crate::conntrack) const V6_DST: u16 = 4;
    pub(in crate::conntrack) const PROTO_NUM: u16 = 1;
    pub(in crate::conntrack) const SRC_PORT: u16 = 2;
    pub(in crate::conntrack) const DST_PORT: u16 = 3;
}

/// Bits of `CTA_STATUS` (`enum ip_conntrack_status`).
pub(super) mod status {
    pub(in crate::conntrack) const SEEN_REPLY: u32 = 1 << 1;
    /// Answers were seen; the connection is not to go when the table is full; it is in the table.
    pub(in crate::conntrack) const KEPT: u32 = SEEN_REPLY | 1 << 2 | 1 << 3;
    pub(in crate::conntrack) const SOURCE_NAT: u32 = 1 << 4;
    pub(in crate::conntrack) const DESTINATION_NAT: u32 = 1 << 5;
    pub(in crate::conntrack) const DYING: u32 = 1 << 9;
}

/// The attributes of an entry by their kinds, unread.
pub(super) struct Parts<'a>([Option<&'a [u8]>; KINDS]);

const KINDS: usize = attribute::FILTER as usize + 1;

impl<'a> Parts<'a> {
    /// Takes the body of a message apart; `None` if it is too short for one.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let mut parts = [None; KINDS];
        for (kind, value) in attributes(message.get(NFGENMSG..)?) {
            if let Some(part) = parts.get_mut(usize::from(kind)) {
                *part = Some(value);
            }
        }
        Some(Self(parts))
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.get(usize::from(kind)).copied().flatten()
    }

    pub(super) fn status(&self) -> Option<u32> {
        let value = self.get(attribute::STATUS)?.first_chunk()?;
        Some(u32::from_be_bytes(*value))
    }

    /// The packets that ask, and those that answer; `None` for what has no ports, or is not what it should be.
    pub(super) fn tuples(&self) -> Option<[Tuple; 2]> {
        let read = |kind| Tuple::read(self.get(kind)?);
        Some([read(attribute::TUPLE_ORIG)?, read(attribute::TUPLE_REPLY)?])
    }
}

/// The packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) protocol: Protocol,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) zoned: bool,
}

impl Tuple {
    /// `None` for what has no ports, or is not what it should be.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let (mut from, mut to, mut protocol) = (None, None, None);
        let (mut from_port, mut to_port, mut zoned) = (None, None, false);
        for (kind, value) in attributes(value) {
            match kind {
                tuple::IP => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            tuple::V4_SRC | tuple::V6_SRC => from = ip(value),
                            tuple::V4_DST | tuple::V6_DST => to = ip(value),
                            _ => {}
                        }
                    }
                }
                tuple::PROTO => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            tuple::PROTO_NUM => protocol = Some(*value.first()?),
                            tuple::SRC_PORT => from_port = port(value),
                            tuple::DST_PORT => to_port = port(value),
                            _ => {}
                        }
                    }
                }
                tuple::ZONE => zoned = true,
                _ => {}
            }
        }
        let mut known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
        Some(Self {
            protocol: known.find(|known| Some(known.number()) == protocol)?,
            from: SocketAddr::new(from?, from_port?),
            to: SocketAddr::new(to?, to_port?),
            zoned,
        })
    }
}

fn port(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*value.first_chunk()?))
}

/// The packets of one direction: from the first to the second.
pub(super) fn write_tuple(
    message: &mut Attributes<'_>,
    kind: u16,
    protocol: Protocol,
    ends: [SocketAddr; 2],
) {
    message.nested(kind, |written| {
        written.nested(tuple::IP, |ip| {
            let kinds = match ends[0] {
                SocketAddr::V4(_) => [tuple::V4_SRC, tuple::V4_DST],
                SocketAddr::V6(_) => [tuple::V6_SRC, tuple::V6_DST],
            };
            for (kind, end) in kinds.into_iter().zip(ends) {
                ip.ip(kind, end.ip());
            }
        });
        written.nested(tuple::PROTO, |proto| {
            proto.bytes(tuple::PROTO_NUM, &[protocol.number()]);
            for (kind, end) in [tuple::SRC_PORT, tuple::DST_PORT].into_iter().zip(ends) {
                proto.bytes(kind, &end.port().to_be_bytes());
            }
        });
    });
}
