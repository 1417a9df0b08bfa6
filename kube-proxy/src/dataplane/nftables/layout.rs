//! Where the two families differ: offsets, lengths, type numbers, and the registers that keys are built in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::affinity::GROUP_MASK;
use super::expr::{Comparison, Expr, Header, Meta, Register};
use crate::model::object::Family;

/// What rules and sets of one family are built from.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) family: Family,
    /// Length of an address in bytes.
    pub(super) address: u32,
    source_offset: u32,
    destination_offset: u32,
    /// nft's number of the address type.
    pub(super) address_type: u32,
    /// nft's numbers of the header and of its two address fields, by which a set says what its key is.
    pub(super) header: u32,
    pub(super) source_field: u32,
    pub(super) destination_field: u32,
    /// The loopback network: address and prefix length.
    loopback: (&'static [u8], u8),
    /// The loopback address that programs use.
    pub(super) localhost: IpAddr,
}

static V4: Layout = Layout {
    family: Family::V4,
    address: 4,
    source_offset: 12,
    destination_offset: 16,
    address_type: 7,
    header: 12,
    source_field: 11,
    destination_field: 12,
    loopback: (&[127, 0, 0, 0], 8),
    localhost: IpAddr::V4(Ipv4Addr::LOCALHOST),
};

static V6: Layout = Layout {
    family: Family::V6,
    address: 16,
    source_offset: 8,
    destination_offset: 24,
    address_type: 8,
    header: 13,
    source_field: 8,
    destination_field: 9,
    loopback: (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 128),
    localhost: IpAddr::V6(Ipv6Addr::LOCALHOST),
};

/// The length of a prefix that leaves no bit of any address open.
const WHOLE: u8 = 128;

impl Layout {
    pub(super) fn of(family: Family) -> &'static Self {
        match family {
            Family::V4 => &V4,
            Family::V6 => &V6,
        }
    }

    /// Registers that an address takes.
    pub(super) fn address_registers(&self) -> u32 {
        self.address / 4
    }

    /// Loads the fields of a key, one behind the other, from the first register on. Each is loaded by itself:
    /// nft 1.0.6 cannot list a load that covers two of them.
    pub(super) fn load(&self, fields: &[Field]) -> Vec<Expr> {
        let mut next = 0;
        let mut load = Vec::with_capacity(fields.len());
        for field in fields {
            let to = Register(next);
            next += field.registers(self);
            match *field {
                Field::Source => load.push(self.source(to)),
                Field::Destination => load.push(self.destination(to)),
                Field::Protocol => load.push(Expr::LoadMeta(Meta::L4proto, to)),
                Field::ProtocolOfInterval => {
                    load.extend([Expr::LoadMeta(Meta::L4proto, to), Expr::ByteOrder(to)]);
                }
                Field::Port => load.push(Expr::Payload {
                    header: Header::Transport,
                    offset: 2,
                    length: 2,
                    to,
                }),
                Field::EndpointId => load.push(Expr::LoadMeta(Meta::Priority, to)),
                Field::AffinityGroup => load.extend([
                    Expr::LoadMeta(Meta::Priority, to),
                    Expr::Bits {
                        register: to,
                        mask: GROUP_MASK.to_ne_bytes().to_vec(),
                        flip: vec![0; 4],
                    },
                ]),
                Field::Slot { count, first } => load.push(Expr::Random {
                    modulus: count,
                    offset: first,
                    to,
                }),
            }
        }
        load
    }

    /// The source address is, or is not, in a network.
    pub(super) fn source_in(&self, network: &[u8], prefix: u8, comparison: Comparison) -> Vec<Expr> {
        within(self.source(Register(0)), network, prefix, comparison)
    }

    /// The source address is this one.
    pub(super) fn source_is(&self, address: IpAddr) -> Vec<Expr> {
        self.source_in(&octets(address), WHOLE, Comparison::Equal)
    }

    /// The destination address is this one.
    pub(super) fn destination_is(&self, address: IpAddr) -> Vec<Expr> {
        let load = self.destination(Register(0));
        within(load, &octets(address), WHOLE, Comparison::Equal)
    }

    /// Writes the source address.
    pub(super) fn set_source(&self, address: IpAddr) -> Vec<Expr> {
        self.set_address(self.source_offset, address)
    }

    /// Writes the destination address.
    pub(super) fn set_destination(&self, address: IpAddr) -> Vec<Expr> {
        self.set_address(self.destination_offset, address)
    }

    fn set_address(&self, offset: u32, address: IpAddr) -> Vec<Expr> {
        vec![
            Expr::Constant(Register(0), octets(address)),
            Expr::SetAddress {
                family: self.family,
                offset,
                length: self.address,
                from: Register(0),
            },
        ]
    }

    /// The destination address is not loopback.
    pub(super) fn destination_not_loopback(&self) -> Vec<Expr> {
        let (network, prefix) = self.loopback;
        within(
            self.destination(Register(0)),
            network,
            prefix,
            Comparison::NotEqual,
        )
    }

    fn source(&self, to: Register) -> Expr {
        self.network(self.source_offset, to)
    }

    fn destination(&self, to: Register) -> Expr {
        self.network(self.destination_offset, to)
    }

    fn network(&self, offset: u32, to: Register) -> Expr {
        Expr::Payload {
            header: Header::Network,
            offset,
            length: self.address,
            to,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A loaded address compared with a network.
fn within(load: Expr, network: &[u8], prefix: u8, comparison: Comparison) -> Vec<Expr> {
    let mask: Vec<u8> = (0..network.len())
        .map(|byte| {
            let bits = usize::from(prefix).saturating_sub(byte * 8).min(8);
            !(0xff_u8.checked_shr(u32::try_from(bits).unwrap_or(8)).unwrap_or(0))
        })
        .collect();
    let value = network
        .iter()
        .zip(&mask)
        .map(|(byte, mask)| byte & mask)
        .collect();
    let mut exprs = vec![load];
    if mask.iter().any(|&byte| byte != 0xff) {
        let flip = vec![0; mask.len()];
        exprs.push(Expr::Bits {
            register: Register(0),
            mask,
            flip,
        });
    }
    exprs.push(Expr::Compare(Register(0), comparison, value));
    exprs
}

/// One field of a key, as rules load it and sets declare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Transport protocol.
    Protocol,
    /// Transport protocol, in a set of intervals.
    ProtocolOfInterval,
    /// Destination port.
    Port,
    /// Number of an endpoint that a client is to stay with, while it is in the packet's priority.
    EndpointId,
    /// The part of it that says which endpoint list of which ServicePort it is of. nft 1.0.6 reads it as the
    /// first field of a key only.
    AffinityGroup,
    /// Slot of an endpoint: a random one of `count` from `first` on.
    Slot { count: u32, first: u32 },
}

impl Field {
    /// 32-bit registers that the field takes in a key.
    pub(super) fn registers(self, layout: &Layout) -> u32 {
        match self {
            Self::Source | Self::Destination => layout.address_registers(),
            Self::Protocol
            | Self::ProtocolOfInterval
            | Self::Port
            | Self::EndpointId
            | Self::AffinityGroup
            | Self::Slot { .. } => 1,
        }
    }
}
