//! A packet that never was.

use std::net::{IpAddr, SocketAddr};

use crate::model::object::{Family, Protocol};

/// What rules can ask about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Packet {
    pub(in crate::dataplane) source: IpAddr,
    /// Of the source's family.
    pub(in crate::dataplane) destination: IpAddr,
    pub(in crate::dataplane) transport: Transport,
    pub(in crate::dataplane) origin: Origin,
    pub(in crate::dataplane) connection: Connection,
    /// The mark that it comes with.
    pub(in crate::dataplane) mark: u32,
}

/// What it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Transport {
    /// A packet to this port.
    To(Protocol, u16),
    /// An ICMP echo request. It has a checksum where others have their port; rules must not mind.
    Ping { checksum: u16 },
}

/// Who hands it to this node's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Origin {
    /// A process in the node's own network namespace.
    Host,
    /// The interface of this name.
    Interface(String),
}

/// What conntrack knows about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Connection {
    /// Nothing: it is the first of its connection.
    New,
    /// It belongs to a connection that was seen both ways.
    Established {
        /// What its destination became; `None`: it stayed as it was.
        redirected: Option<SocketAddr>,
        /// Its source was replaced.
        masqueraded: bool,
    },
    /// It is about such a connection, as an ICMP error is; its addresses stay as they are.
    Related,
    /// It fits in no connection.
    Invalid,
}

impl Packet {
    pub(in crate::dataplane) fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The protocol number in its IP header.
    pub(in crate::dataplane) fn protocol(&self) -> u8 {
        match (self.transport, self.family()) {
            (Transport::To(protocol, _), _) => protocol.number(),
            (Transport::Ping { .. }, Family::V4) => 1,
            (Transport::Ping { .. }, Family::V6) => 58,
        }
    }

    /// Rewrites the destination as conntrack does.
    pub(in crate::dataplane) fn redirect(&mut self, to: SocketAddr) {
        self.destination = to.ip();
        if let Transport::To(_, port) = &mut self.transport {
            *port = to.port();
        }
    }
}
