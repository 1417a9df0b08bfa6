//! What the kernel's accounting says of one entry of its table, as a dump and the event of its end tell it.

use std::hash::{BuildHasher as _, RandomState};

use super::accounts::{Bytes, Counted, Key};
use crate::conntrack::entry::{Parts, attribute, status};
use crate::conntrack::netlink::GET;
use crate::netlink::{Attributes, attributes, begin, end, flag};

/// `CTA_COUNTERS_BYTES`, in `CTA_COUNTERS_ORIG` and `CTA_COUNTERS_REPLY`.
const COUNTERS_BYTES: u16 = 2;
const AF_UNSPEC: u8 = 0;

impl Counted {
    /// `None` for what nobody redirected, what nobody counted, protocols that Services do not have, and for what is
    /// not what it should be. `keys` makes its key.
    pub(in crate::conntrack) fn read(message: &[u8], keys: &RandomState) -> Option<Self> {
        let parts = Parts::read(message)?;
        let bytes = Bytes {
            to_endpoint: bytes(parts.get(attribute::COUNTERS_ORIG)?)?,
            from_endpoint: bytes(parts.get(attribute::COUNTERS_REPLY)?)?,
        };
        let [asked, answering] = parts.tuples()?;
        if asked.to == answering.from {
            return None;
        }
        let [original, zone, id] =
            [attribute::TUPLE_ORIG, attribute::ZONE, attribute::ID].map(|kind| parts.get(kind));
        Some(Self {
            key: Key(keys.hash_one((original, zone, id?))),
            protocol: asked.protocol,
            asked: asked.to,
            dying: parts.status().is_some_and(|status| status & status::DYING != 0),
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
