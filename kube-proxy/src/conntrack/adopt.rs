//! Makes connections that IPVS translates conntrack's own, so that they outlive their virtual server.
//!
//! IPVS tells conntrack where it sends a connection, so that others can see it, but rewrites its packets itself: the entry
//! has the endpoint as the source of its answers, and no mark that anything is to be rewritten. Nobody may add
//! that mark later, but whoever makes an entry may. So such an entry is deleted and made anew with the same
//! tuples, state and time left, and with the translation that it had; both requests go to the kernel in one buffer, with
//! microseconds between them. A packet that comes in between makes an entry of its own, which the next round takes.
//!
//! IPVS keeps its own memory of the connection as long as it hears answers, and rewrites those to what conntrack makes
//! of them anyway.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use super::entry::{Parts, Tuple, attribute, status, write_tuple};
use super::netlink::{DELETE, GET, NEW};
use crate::model::object::{Family, Protocol};
use crate::netlink::{Attributes, Socket, attributes, begin, end, flag, nfproto};

/// Connections that are sent together: each needs two requests, and each of those may be answered.
const BATCH: usize = 32;
/// So often at most the table is read, since each reading may find connections that packets began anew meanwhile.
const ROUNDS: u32 = 5;

/// `enum ctattr_nat`, `ctattr_protonat`.
mod nat {
    pub(super) const V4: [u16; 2] = [1, 2];
    pub(super) const PROTO: u16 = 3;
    pub(super) const V6: [u16; 2] = [4, 5];
    pub(super) const PORT: [u16; 2] = [1, 2];
}

/// `enum ctattr_protoinfo`, `ctattr_protoinfo_tcp`.
mod protoinfo {
    pub(super) const TCP: u16 = 1;
    pub(super) const TCP_STATE: u16 = 1;
    pub(super) const TCP_FLAGS_ORIGINAL: u16 = 4;
    pub(super) const TCP_FLAGS_REPLY: u16 = 5;
    /// `TCP_CONNTRACK_TIME_WAIT`, `TCP_CONNTRACK_CLOSE`.
    pub(super) const ENDED: [u8; 2] = [7, 8];
    /// Sequence numbers are not compared: an entry made anew has seen none.
    pub(super) const LIBERAL: u8 = 1 << 3;
    /// What is set in an entry made anew: that, what both ends agreed on, and which of them closed. The rest is about
    /// numbers that were seen.
    pub(super) const KEPT: u8 = LIBERAL | 1 | 1 << 1 | 1 << 2;
}

/// A connection of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) asked: Tuple,
    pub(super) answers: Tuple,
    pub(super) status: u32,
    id: Vec<u8>,
    /// Attributes that are given back as they came: the time left, the mark, the labels.
    pub(super) kept: Vec<(u16, Vec<u8>)>,
    pub(super) protoinfo: Vec<u8>,
}

impl Tracked {
    /// `None` for what has no ports, is tracked in a zone of its own, or is not what it should be.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let parts = Parts::read(message)?;
        let [asked, answers] = parts.tuples()?;
        let zoned = parts.get(attribute::ZONE).is_some() || asked.zoned || answers.zoned;
        (!zoned).then_some(())?;
        let kept = [attribute::TIMEOUT, attribute::MARK, attribute::LABELS].into_iter();
        Some(Self {
            asked,
            answers,
            status: parts.status()?,
            id: parts.get(attribute::ID)?.to_vec(),
            kept: kept
                .filter_map(|kind| Some((kind, parts.get(kind)?.to_vec())))
                .collect(),
            protoinfo: parts.get(attribute::PROTOINFO).unwrap_or_default().to_vec(),
        })
    }

    /// It lives, its packets go elsewhere than they were addressed to, and conntrack is not who rewrites them.
    fn is_through_ipvs(&self) -> bool {
        self.answers.from != self.asked.to && self.status & status::DESTINATION_NAT == 0 && !self.has_ended()
    }

    /// Appends the request that deletes it.
    pub(super) fn write_deletion(&self, bytes: &mut Vec<u8>, sequence: u32, with_id: bool) {
        let family = nfproto(Family::of(self.asked.to.ip()));
        let start = begin(bytes, DELETE, 0, sequence, (family, 0));
        let mut message = Attributes::at_end(bytes);
        write_tuple(
            &mut message,
            attribute::TUPLE_ORIG,
            self.asked.protocol,
            [self.asked.from, self.asked.to],
        );
        if with_id {
            message.bytes(attribute::ID, &self.id);
        }
        end(bytes, start);
    }

    /// Appends the request that makes it, with the translation.
    fn write_creation(&self, bytes: &mut Vec<u8>, sequence: u32) {
        let family = nfproto(Family::of(self.asked.to.ip()));
        let start = begin(bytes, NEW, flag::CREATE | flag::EXCL, sequence, (family, 0));
        let mut message = Attributes::at_end(bytes);
        let (protocol, [client, to]) = (self.asked.protocol, [self.asked.from, self.asked.to]);
        write_tuple(&mut message, attribute::TUPLE_ORIG, protocol, [client, to]);
        // As without translation: the kernel enters it here when it reads of the translation.
        write_tuple(&mut message, attribute::TUPLE_REPLY, protocol, [to, client]);
        write_nat(&mut message, attribute::NAT_DST, self.answers.from);
        if self.status & status::SOURCE_NAT != 0 {
            write_nat(&mut message, attribute::NAT_SRC, self.answers.to);
        }
        message.be32(attribute::STATUS, self.status & status::KEPT);
        for (kind, value) in &self.kept {
            message.bytes(*kind, value);
        }
        self.write_protoinfo(&mut message);
        end(bytes, start);
    }

    fn write_protoinfo(&self, message: &mut Attributes<'_>) {
        if self.protoinfo.is_empty() {
            return;
        }
        if self.asked.protocol != Protocol::Tcp {
            return message.nested(attribute::PROTOINFO, |info| info.copy(&self.protoinfo));
        }
        message.nested(attribute::PROTOINFO, |info| {
            info.nested(protoinfo::TCP, |tcp| {
                for (kind, value) in self.tcp() {
                    match (kind, value) {
                        (protoinfo::TCP_FLAGS_ORIGINAL | protoinfo::TCP_FLAGS_REPLY, [flags, ..]) => {
                            tcp.bytes(kind, &[flags | protoinfo::LIBERAL, protoinfo::KEPT]);
                        }
                        _ => tcp.bytes(kind, value),
                    }
                }
            });
        });
    }

    /// What is known of a connection over TCP: its state, window scales and flags.
    fn tcp(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let tcp = attributes(&self.protoinfo).find(|(kind, _)| *kind == protoinfo::TCP);
        attributes(tcp.map(|(_, value)| value).unwrap_or_default())
    }

    /// It is over, and remembered for packets that stray. Who uses its port again begins anew.
    pub(super) fn has_ended(&self) -> bool {
        let mut all = self.tcp();
        all.any(|(kind, value)| {
            kind == protoinfo::TCP_STATE && protoinfo::ENDED.iter().any(|ended| value == [*ended])
        })
    }
}

/// What one end becomes: exactly this address and port.
pub(super) fn write_nat(message: &mut Attributes<'_>, kind: u16, to: SocketAddr) {
    message.nested(kind, |written| {
        let ips = if to.is_ipv4() { nat::V4 } else { nat::V6 };
        for kind in ips {
            written.ip(kind, to.ip());
        }
        written.nested(nat::PROTO, |proto| {
            for kind in nat::PORT {
                proto.bytes(kind, &to.port().to_be_bytes());
            }
        });
    });
}

/// Makes the connections through IPVS to these frontends conntrack's own, in the network namespace of this thread; how many.
/// Where somebody has no answer yet the next packet decides, as ever.
///
/// # Errors
/// When the kernel refuses. What was made until then stays.
pub(crate) fn adopt(is_leaving: impl Fn(Protocol, SocketAddr) -> bool) -> Result<u64, Errno> {
    let (mut socket, mut adopted) = (Socket::open()?, 0);
    for family in Family::ALL {
        for _ in 0..ROUNDS {
            let mut found = Vec::new();
            each(family, |tracked| {
                if tracked.is_through_ipvs() && is_leaving(tracked.asked.protocol, tracked.asked.to) {
                    found.push(tracked);
                }
            })?;
            if found.is_empty() {
                break;
            }
            for some in found.chunks(BATCH) {
                adopted += make_anew(&mut socket, some)?;
            }
        }
    }
    Ok(adopted)
}

/// The addresses that connections of this table have as their source, of those that are asked for.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn sources(is_asked_for: impl Fn(IpAddr) -> bool) -> Result<BTreeSet<IpAddr>, Errno> {
    let mut sources = BTreeSet::new();
    for family in Family::ALL {
        each(family, |tracked| {
            sources.extend(
                [tracked.asked.from.ip()]
                    .into_iter()
                    .filter(|ip| is_asked_for(*ip)),
            );
        })?;
    }
    Ok(sources)
}

/// Passes on every connection of a family.
pub(super) fn each(family: Family, mut pass_on: impl FnMut(Tracked)) -> Result<(), Errno> {
    let mut request = Vec::new();
    let start = begin(&mut request, GET, flag::DUMP, 1, (nfproto(family), 0));
    end(&mut request, start);
    Socket::open()?.dump(&request, |message| {
        if let Some(tracked) = Tracked::read(message) {
            pass_on(tracked);
        }
    })
}

/// Deletes these and makes them again; how many there are again.
fn make_anew(socket: &mut Socket, connections: &[Tracked]) -> Result<u64, Errno> {
    let mut bytes = Vec::new();
    for (sequence, connection) in (1..).step_by(2).zip(connections) {
        connection.write_deletion(&mut bytes, sequence, true);
        connection.write_creation(&mut bytes, sequence + 1);
    }
    let failures = socket.ask(&bytes)?;
    let failure = |sequence| {
        let mut all = failures.iter();
        all.find(|failure| failure.sequence == sequence)
            .map(|failure| failure.errno)
    };
    let (mut made, mut refused, mut ended) = (0, None, Vec::new());
    for (sequence, connection) in (1..).step_by(2).zip(connections) {
        match (failure(sequence), failure(sequence + 1)) {
            (None, None) => made += 1,
            // It ended before it could be deleted, so there must be none.
            (Some(Errno::ENOENT), None) => connection.write_deletion(&mut ended, sequence, false),
            // A packet came in between, or made another one of what had ended.
            (_, Some(Errno::EEXIST)) => {}
            (deleted, created) => refused = refused.or(deleted).or(created),
        }
    }
    if !ended.is_empty() {
        socket.ask(&ended)?;
    }
    refused.map_or(Ok(made), Err)
}
