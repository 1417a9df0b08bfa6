//! What the kernel's accounting says of one entry of its table, as a dump and the event of its end tell it.

use std::hash::{BuildHasher as _, RandomState};

use super::accounts::{Bytes, Counted, Key};
use crate::conntrack::adopt::status;
use crate::conntrack::netlink::{GET, NFGENMSG, Tuple, attribute};
use crate::netlink::{Attributes, attributes, begin, end, flag};

/// `CTA_COUNTERS_BYTES`, in `CTA_COUNTERS_ORIG` and `CTA_COUNTERS_REPLY`.
const COUNTERS_BYTES: u16 = 2;
/// `IPS_DYING`.
const DYING: u32 = 1 << 9;
const AF_UNSPEC: u8 = 0;

impl Counted {
    /// `None` for what nobody redirected, what nobody counted, protocols that Services do not have, and for what is
    /// not what it should be. `keys` makes its key.
    pub(in crate::conntrack) fn read(message: &[u8], keys: &RandomState) -> Option<Self> {
        let (mut original, mut reply, mut flags, mut zone) = (None, None, 0, None);
        let (mut id, mut to_endpoint, mut from_endpoint) = (None, None, None);
        for (kind, value) in attributes(message.get(NFGENMSG..)?) {
            match kind {
                attribute::TUPLE_ORIG => original = Some(value),
                attribute::TUPLE_REPLY => reply = Some(value),
                attribute::STATUS => flags = u32::from_be_bytes(*value.first_chunk()?),
                attribute::COUNTERS_ORIG => to_endpoint = bytes(value),
                attribute::COUNTERS_REPLY => from_endpoint = bytes(value),
                attribute::ZONE => zone = Some(value),
                attribute::ID => id = Some(value),
                _ => {}
            }
        }
        let bytes = Bytes {
            to_endpoint: to_endpoint?,
            from_endpoint: from_endpoint?,
        };
        let original = original?;
        let (asked, answering) = (Tuple::read(original)?, Tuple::read(reply?)?);
        if asked.to == answering.from {
            return None;
        }
        Some(Self {
            key: Key(keys.hash_one((original, zone, id?))),
            protocol: asked.protocol,
            asked: asked.to,
            dying: flags & DYING != 0,
            bytes,
        })
    }
}

fn bytes(counters: &[u8]) -> Option<u64> {
    let (_, value) = attributes(counters).find(|(kind, _)| *kind == COUNTERS_BYTES)?;
    Some(u64::from_be_bytes(*value.first_chunk()?))
}

/// The request for all entries of both families; where rules alone redirect, the kernel leaves out what they did not
/// (since 5.17; before, it takes no notice).
pub(in crate::conntrack) fn request(by_ipvs: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin(&mut bytes, GET, flag::DUMP, 1, (AF_UNSPEC, 0));
    if !by_ipvs {
        Attributes::at_end(&mut bytes).be32(attribute::STATUS, status::DESTINATION_NAT);
    }
    end(&mut bytes, start);
    bytes
}
