//! The expressions that rules are made of, typed, and how each is encoded.
//!
//! Only forms that nft 1.0.6 could have written itself: it aborts on others when it lists them, and with it
//! everybody's `nft list ruleset` on the node. The test that lists every rule guards that.

use std::time::Duration;

use super::encode::Attributes;
use crate::model::object::Family;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;

/// A 32-bit register, counted from 0. Longer values take the following ones as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u32);

impl Register {
    fn number(self) -> u32 {
        FIRST_REGISTER + self.0
    }
}

/// Which header a payload offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Network,
    Transport,
}

/// Metadata of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    /// The mark.
    Mark,
    /// The transport protocol.
    L4proto,
    /// The priority for queueing, which only the way out looks at.
    Priority,
    /// Name of the interface it came in through, 16 bytes; empty for the host's own packets.
    InputInterface,
}

impl Meta {
    fn number(self) -> u32 {
        match self {
            Self::Priority => 2,
            Self::Mark => 3,
            Self::InputInterface => 6,
            Self::L4proto => 16,
        }
    }
}

/// What conntrack knows about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conntrack {
    /// Bits.
    State,
    /// One byte: 0 for packets of whoever began the connection, 1 for replies.
    Direction,
    /// Bits.
    Status,
}

impl Conntrack {
    fn number(self) -> u32 {
        match self {
            Self::State => 0,
            Self::Direction => 1,
            Self::Status => 2,
        }
    }
}

/// Which of a packet's addresses a route look-up judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteOf {
    Source,
    Destination,
}

/// How a comparison must turn out for the rule to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
}

/// What a set or map look-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Find {
    /// Go on when the key is in the set.
    Member,
    /// Go on when the key is not in the set.
    NotMember,
    /// Do what the map says.
    Verdict,
    /// Load what the map says into these registers.
    Load(Register),
}

/// What a rule does to an element of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remember {
    /// Adds it unless it is there; it goes when it was not used for so long.
    For(Duration),
    /// Removes it.
    NoLonger,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    Return,
    Jump(&'static str),
    /// As owned text: the chain may be one of those made as needed.
    Goto(String),
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    /// Loads bytes of the packet.
    Payload {
        header: Header,
        offset: u32,
        length: u32,
        to: Register,
    },
    /// Writes an address of the packet and sees to the checksums.
    SetAddress {
        family: Family,
        offset: u32,
        length: u32,
        from: Register,
    },
    /// Loads metadata.
    LoadMeta(Meta, Register),
    /// Stores a register into metadata.
    SetMeta(Meta, Register),
    /// Loads what conntrack knows.
    LoadConntrack(Conntrack, Register),
    /// Loads the type of the route to an address (`RTN_LOCAL`, …).
    RouteType(RouteOf, Register),
    /// Keeps the bits of `mask`, then flips those of `flip`.
    Bits {
        register: Register,
        mask: Vec<u8>,
        flip: Vec<u8>,
    },
    /// What nft puts behind a protocol number in a key of intervals; it changes nothing in one byte.
    ByteOrder(Register),
    /// Loads a constant.
    Constant(Register, Vec<u8>),
    /// Compares a register with a constant.
    Compare(Register, Comparison, Vec<u8>),
    /// Looks a key up.
    Lookup {
        set: &'static str,
        key: Register,
        find: Find,
    },
    /// Adds an element to a map, or starts the timeout of the one that is there anew. Or removes it.
    Remember {
        map: &'static str,
        key: Register,
        value: Register,
        how: Remember,
    },
    /// A random number from `offset` to `offset + modulus - 1`.
    Random { modulus: u32, offset: u32, to: Register },
    /// Rewrites the destination to the address and port in two registers.
    Dnat {
        family: Family,
        address: Register,
        port: Register,
    },
    /// Rewrites the source to the address of the outgoing interface, with a random port.
    Masquerade,
    /// Refuses with ICMP port-unreachable.
    Reject(Family),
    /// Ends the rule.
    Verdict(Verdict),
}

impl Expr {
    /// The kernel's name of the expression.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } | Self::SetAddress { .. } => "payload",
            Self::LoadMeta(..) | Self::SetMeta(..) => "meta",
            Self::LoadConntrack(..) => "ct",
            Self::RouteType(..) => "fib",
            Self::Bits { .. } => "bitwise",
            Self::ByteOrder(_) => "byteorder",
            Self::Compare(..) => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Remember { .. } => "dynset",
            Self::Random { .. } => "numgen",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
            Self::Constant(..) | Self::Verdict(_) => "immediate",
        }
    }

    /// Writes the expression as one element of a rule's list.
    pub(super) fn encode(&self, list: &mut Attributes<'_>) {
        list.nested(NFTA_LIST_ELEM, |expr| {
            expr.string(NFTA_EXPR_NAME, self.name());
            expr.nested(NFTA_EXPR_DATA, |data| self.data(data));
        });
    }

    fn data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Payload {
                header,
                offset,
                length,
                to,
            } => {
                data.be32(1, to.number());
                data.be32(2, if *header == Header::Network { 1 } else { 2 });
                data.be32(3, *offset);
                data.be32(4, *length);
            }
            Self::SetAddress {
                family,
                offset,
                length,
                from,
            } => {
                data.be32(2, 1); // NFT_PAYLOAD_NETWORK_HEADER
                data.be32(3, *offset);
                data.be32(4, *length);
                data.be32(5, from.number());
                // An IPv4 header has a checksum of its own; that of TCP, UDP and SCTP covers the addresses.
                let (kind, at) = if *family == Family::V4 { (1, 10) } else { (0, 0) };
                data.be32(6, kind);
                data.be32(7, at);
                data.be32(8, 1); // NFT_PAYLOAD_L4CSUM_PSEUDOHDR
            }
            Self::LoadMeta(meta, to) => {
                data.be32(1, to.number());
                data.be32(2, meta.number());
            }
            Self::SetMeta(meta, from) => {
                data.be32(2, meta.number());
                data.be32(3, from.number());
            }
            Self::LoadConntrack(what, to) => {
                data.be32(1, to.number());
                data.be32(2, what.number());
            }
            Self::RouteType(of, to) => {
                data.be32(1, to.number());
                data.be32(2, 3); // NFT_FIB_RESULT_ADDRTYPE
                data.be32(3, if *of == RouteOf::Source { 1 } else { 2 });
            }
            Self::Bits { register, mask, flip } => bits(data, *register, mask, flip),
            Self::ByteOrder(register) => {
                data.be32(1, register.number());
                data.be32(2, register.number());
                data.be32(3, 1); // NFT_BYTEORDER_HTON
                data.be32(4, 1);
                data.be32(5, 2);
            }
            Self::Constant(register, value) => {
                data.be32(1, register.number());
                data.nested(2, |constant| constant.bytes(NFTA_DATA_VALUE, value));
            }
            Self::Compare(register, comparison, value) => {
                data.be32(1, register.number());
                data.be32(2, if *comparison == Comparison::Equal { 0 } else { 1 });
                data.nested(3, |constant| constant.bytes(NFTA_DATA_VALUE, value));
            }
            Self::Lookup { set, key, find } => lookup(data, set, *key, *find),
            Self::Remember { map, key, value, how } => {
                data.string(1, map);
                data.be32(3, if *how == Remember::NoLonger { 2 } else { 1 });
                data.be32(4, key.number());
                data.be32(5, value.number());
                if let Remember::For(timeout) = how {
                    let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                    data.bytes(6, &milliseconds.to_be_bytes());
                }
            }
            Self::Random { modulus, offset, to } => {
                data.be32(1, to.number());
                data.be32(2, *modulus);
                data.be32(3, 1); // NFT_NG_RANDOM
                data.be32(4, *offset);
            }
            Self::Dnat {
                family,
                address,
                port,
            } => {
                data.be32(1, 1); // NFT_NAT_DNAT
                data.be32(2, u32::from(super::encode::nfproto(*family)));
                data.be32(3, address.number());
                data.be32(5, port.number());
            }
            Self::Masquerade => data.be32(1, 1 << 4), // NF_NAT_RANGE_PROTO_RANDOM_FULLY
            Self::Reject(family) => {
                data.be32(1, 0); // NFT_REJECT_ICMP_UNREACH
                data.bytes(2, &[if *family == Family::V4 { 3 } else { 4 }]);
            }
            Self::Verdict(verdict) => {
                data.be32(1, 0); // NFT_REG_VERDICT
                data.nested(2, |constant| verdict.encode(constant));
            }
        }
    }
}

fn bits(data: &mut Attributes<'_>, register: Register, mask: &[u8], flip: &[u8]) {
    data.be32(1, register.number());
    data.be32(2, register.number());
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a mask is at most an address long"
    )]
    data.be32(3, mask.len() as u32);
    data.nested(4, |constant| constant.bytes(NFTA_DATA_VALUE, mask));
    data.nested(5, |constant| constant.bytes(NFTA_DATA_VALUE, flip));
}

fn lookup(data: &mut Attributes<'_>, set: &str, key: Register, find: Find) {
    data.string(1, set);
    data.be32(2, key.number());
    match find {
        Find::Member => {}
        Find::NotMember => data.be32(5, 1), // NFT_LOOKUP_F_INV
        Find::Verdict => data.be32(3, 0),   // NFT_REG_VERDICT
        Find::Load(to) => data.be32(3, to.number()),
    }
}

impl Verdict {
    /// Writes the verdict as data: of a rule's last expression, or of a map's element.
    pub(super) fn encode(&self, data: &mut Attributes<'_>) {
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Return => (-5, None),
            Self::Jump(chain) => (-3, Some(*chain)),
            Self::Goto(chain) => (-4, Some(chain.as_str())),
        };
        data.nested(NFTA_DATA_VERDICT, |verdict| {
            verdict.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.string(NFTA_VERDICT_CHAIN, chain);
            }
        });
    }
}
