//! A packet that never was.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};

use crate::dataplane::nftables::expr::Header;
use crate::model::object::{Family, Protocol};

/// What rules can ask about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Packet {
    pub(in super::super) source: IpAddr,
    /// Of the source's family.
    pub(in super::super) destination: IpAddr,
    pub(in super::super) transport: Transport,
    pub(in super::super) origin: Origin,
    pub(in super::super) connection: Connection,
    /// The mark that it comes with.
    pub(in super::super) mark: u32,
}

/// What it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Transport {
    /// A packet to this port.
    To(Protocol, u16),
    /// An ICMP echo request. It has a checksum where others have their port; rules must not mind.
    Ping { checksum: u16 },
}

/// Who hands it to this node's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Origin {
    /// A process in the node's own network namespace.
    Host,
    /// The interface of this name.
    Interface(String),
}

/// What conntrack knows about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Connection {
    /// Nothing: it is the first of its connection.
    New,
    /// It belongs to a connection that was seen both ways.
    Established {
        /// What its destination became; `None`: it stayed as it was.
        redirected: Option<SocketAddr>,
        /// Its source was replaced.
        masqueraded: bool,
    },
}

impl Packet {
    pub(super) fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The protocol number in its IP header.
    pub(super) fn protocol(&self) -> u8 {
        match (self.transport, self.family()) {
            (Transport::To(protocol, _), _) => protocol.number(),
            (Transport::Ping { .. }, Family::V4) => 1,
            (Transport::Ping { .. }, Family::V6) => 58,
        }
    }

    /// Bytes of a header.
    ///
    /// # Errors
    /// When they are not among those that a virtual packet has.
    pub(super) fn bytes(&self, header: Header, offset: u32, length: u32) -> anyhow::Result<Vec<u8>> {
        let known = match header {
            Header::Network => self.network_header()?,
            Header::Transport => self.transport_header(),
        };
        let end = offset.saturating_add(length);
        let found = known.get(offset as usize..end as usize);
        let found = found.and_then(|bytes| bytes.iter().copied().collect::<Option<Vec<u8>>>());
        found.with_context(|| {
            format!("a virtual packet has no bytes {offset} to {end} of its {header:?} header")
        })
    }

    /// Rewrites the destination as conntrack does.
    pub(super) fn redirect(&mut self, to: SocketAddr) {
        self.destination = to.ip();
        if let Transport::To(_, port) = &mut self.transport {
            *port = to.port();
        }
    }

    fn network_header(&self) -> anyhow::Result<Vec<Option<u8>>> {
        let (mut header, protocol_at, source_at) = match self.family() {
            Family::V4 => (vec![None; 20], 9, 12),
            Family::V6 => (vec![None; 40], 6, 8),
        };
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
            (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
            (from, to) => bail!("no packet from {from} to {to}: not of one family"),
        };
        header[protocol_at] = Some(self.protocol());
        for (byte, value) in header.iter_mut().skip(source_at).zip(addresses) {
            *byte = Some(value);
        }
        Ok(header)
    }

    fn transport_header(&self) -> Vec<Option<u8>> {
        let (Transport::To(_, number) | Transport::Ping { checksum: number }) = self.transport;
        let [high, low] = number.to_be_bytes();
        vec![None, None, Some(high), Some(low)]
    }
}
