//! The kernel's table of tracked flows, over ctnetlink: what walks through it and deletes.
//!
//! A table may have a million entries, so it is read as a stream through one buffer, and what is stale is deleted
//! in small batches over a second socket meanwhile. An entry is named by its whole original tuple, its zone
//! and the number that the kernel gave it, so that one which took its place is not hit.

use std::net::IpAddr;

use nix::errno::Errno;

use super::entry::{Parts, attribute, status, tuple};
use super::flows::{Filter, Flow};
use crate::model::object::{Family, Protocol};
use crate::netlink::{Attributes, Socket, begin, end, flag, nfproto};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
pub(super) const NEW: u16 = SUBSYSTEM << 8;
pub(super) const GET: u16 = SUBSYSTEM << 8 | 1;
pub(super) const DELETE: u16 = SUBSYSTEM << 8 | 2;
const GET_STATS: u16 = SUBSYSTEM << 8 | 5;
/// Deletions that are sent together: each may be answered, and all answers must fit in a small receive buffer.
const BATCH: u32 = 64;

/// Which parts of the original tuple entries must share (`CTA_FILTER_ORIG_FLAGS`).
mod filter {
    pub(super) const ORIG_FLAGS: u16 = 1;
    pub(super) const IP_DST: u32 = 1 << 1;
    pub(super) const PROTO_NUM: u32 = 1 << 3;
    pub(super) const PROTO_DST_PORT: u32 = 1 << 5;
}

/// What a walk through the table came to.
#[derive(Debug)]
pub(super) struct Swept {
    /// Entries deleted.
    pub(super) deleted: u64,
    /// Whether the whole table was seen and everything stale is gone.
    pub(super) result: Result<(), Errno>,
}

/// Asks for something of little size, so that the kernel loads conntrack if that is a module which nobody needed yet.
pub(crate) fn load() -> Result<(), Errno> {
    let mut question = Vec::new();
    let start = begin(&mut question, GET_STATS, flag::ACK, 1, (0, 0));
    end(&mut question, start);
    let failures = Socket::open()?.ask(&question)?;
    failures.first().map_or(Ok(()), |failure| Err(failure.errno))
}

/// Walks through these flows, and perhaps others, in the network namespace of this thread, and deletes those that
/// are stale.
pub(super) fn sweep(flows: Filter, is_stale: impl Fn(&Flow) -> bool) -> Swept {
    let mut deleted = 0;
    let mut result = walk(flows, true, &mut deleted, &is_stale);
    if matches!(result, Err(Errno::EINVAL | Errno::EOPNOTSUPP)) {
        // A kernel that filters by family only. One before 5.8 does not even say so, and gives everything.
        result = walk(flows, false, &mut deleted, &is_stale);
    }
    Swept { deleted, result }
}

pub(super) fn walk(
    flows: Filter,
    filtered: bool,
    deleted: &mut u64,
    is_stale: impl Fn(&Flow) -> bool,
) -> Result<(), Errno> {
    let mut table = Socket::open()?;
    let mut deletions = Deletions::new(flows.family)?;
    let walked = table.dump(&request(flows, filtered), |message| {
        if let Some(entry) = Entry::read(message)
            && entry.flow.protocol == flows.protocol
            && is_stale(&entry.flow)
        {
            deletions.add(&entry);
        }
    });
    // Also what was found in a walk that failed is stale.
    walked.and(deletions.finish(deleted))
}

/// The request for all entries of a family, or for those that pass a filter of the kernel's.
pub(super) fn request(flows: Filter, filtered: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin(&mut bytes, GET, flag::DUMP, 1, (nfproto(flows.family), 0));
    if filtered {
        let mut message = Attributes::at_end(&mut bytes);
        let mut flags = filter::PROTO_NUM;
        message.nested(attribute::TUPLE_ORIG, |original| {
            // Not an IPv6 address: kernels from 5.8 on, and 6.18 still, leave out those that have it.
            if let Some(IpAddr::V4(ip)) = flows.ip {
                flags |= filter::IP_DST;
                original.nested(tuple::IP, |addresses| {
                    addresses.bytes(tuple::V4_DST, &ip.octets());
                });
            }
            original.nested(tuple::PROTO, |proto| {
                proto.bytes(tuple::PROTO_NUM, &[flows.protocol.number()]);
                if let Some(port) = flows.port {
                    flags |= filter::PROTO_DST_PORT;
                    proto.bytes(tuple::DST_PORT, &port.to_be_bytes());
                }
            });
        });
        message.nested(attribute::FILTER, |shared| {
            shared.bytes(filter::ORIG_FLAGS, &flags.to_ne_bytes());
        });
    }
    end(&mut bytes, start);
    bytes
}

/// An entry of the table, as a message of a dump shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) flow: Flow,
    /// The attribute of the original tuple, its zone included where it has one of its own.
    original: &'a [u8],
    zone: Option<&'a [u8]>,
    pub(super) id: &'a [u8],
}

impl<'a> Entry<'a> {
    /// `None` for what has no ports, or is not what it should be.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let parts = Parts::read(message)?;
        let [asked, answering] = parts.tuples()?;
        if asked.protocol == Protocol::Tcp {
            return None;
        }
        let zone = parts.get(attribute::ZONE);
        Some(Self {
            flow: Flow {
                protocol: asked.protocol,
                asked: asked.to,
                answering: answering.from,
                zoned: zone.is_some() || asked.zoned || answering.zoned,
                answered: parts
                    .status()
                    .is_none_or(|status| status & status::SEEN_REPLY != 0),
            },
            original: parts.get(attribute::TUPLE_ORIG)?,
            zone,
            id: parts.get(attribute::ID)?,
        })
    }

    /// Appends the request that deletes it.
    pub(super) fn write_deletion(&self, bytes: &mut Vec<u8>, sequence: u32, family: Family) {
        let start = begin(bytes, DELETE, 0, sequence, (nfproto(family), 0));
        let mut message = Attributes::at_end(bytes);
        // Without a tuple this would delete the whole table; an entry without one cannot be read.
        message.nested(attribute::TUPLE_ORIG, |original| original.copy(self.original));
        if let Some(zone) = self.zone {
            message.bytes(attribute::ZONE, zone);
        }
        message.bytes(attribute::ID, self.id);
        end(bytes, start);
    }
}

/// Entries to delete, sent some at a time.
pub(super) struct Deletions {
    socket: Socket,
    family: Family,
    bytes: Vec<u8>,
    waiting: u32,
    deleted: u64,
    failed: Option<Errno>,
}

impl Deletions {
    pub(super) fn new(family: Family) -> Result<Self, Errno> {
        Ok(Self {
            socket: Socket::open()?,
            family,
            bytes: Vec::new(),
            waiting: 0,
            deleted: 0,
            failed: None,
        })
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        self.waiting += 1;
        entry.write_deletion(&mut self.bytes, self.waiting, self.family);
        if self.waiting == BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        let sent = std::mem::take(&mut self.waiting);
        if sent == 0 {
            return;
        }
        match self.socket.ask(&self.bytes) {
            Ok(failures) => {
                self.deleted += u64::from(sent).saturating_sub(failures.len() as u64);
                // What is gone already is no failure: it ended, or the dump showed it twice.
                let failure = failures.iter().find(|failure| failure.errno != Errno::ENOENT);
                self.failed = self.failed.or(failure.map(|failure| failure.errno));
            }
            Err(errno) => self.failed = self.failed.or(Some(errno)),
        }
        self.bytes.clear();
    }

    /// Sends what is left, and adds up.
    pub(super) fn finish(mut self, deleted: &mut u64) -> Result<(), Errno> {
        self.send();
        *deleted += self.deleted;
        self.failed.map_or(Ok(()), Err)
    }
}
