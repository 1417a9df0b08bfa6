//! The entries of the ledger, which become elements of sets and maps (`element.rs`): keys and values, compact.
//!
//! Hundreds of thousands of them are kept in memory, so a key is 32 bytes and a value 24, and only the few
//! that carry a verdict or a source range own memory of their own.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::chain::Chain;
use super::expr::Verdict;
use super::object::Object;
use crate::model::object::{Family, Protocol};
use crate::model::view::{Endpoint, ServiceAddress, ServicePortView};

/// Slots of a Service's local endpoints begin here, those of all its endpoints at 0.
pub(super) const FIRST_LOCAL_SLOT: u32 = 1_000_000;
/// The longest comment of an element. nft refuses to load what is longer than 128 bytes with its zero.
const LONGEST_COMMENT: usize = 127;

/// A destination address of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::dataplane) enum Destination {
    /// This address.
    Ip(IpAddr),
    /// Those of the node's addresses of this family that accept node ports.
    Node(Family),
}

/// Where traffic for a Service arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::dataplane) struct Frontend {
    pub(in crate::dataplane) address: Destination,
    pub(in crate::dataplane) protocol: Protocol,
    pub(in crate::dataplane) port: u16,
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::dataplane) struct Backend {
    pub(in crate::dataplane) ip: IpAddr,
    pub(in crate::dataplane) port: u16,
}

impl From<&Endpoint> for Backend {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            ip: endpoint.ip,
            port: endpoint.port,
        }
    }
}

/// Key of an element, and which set it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// What to do with a packet to a Service.
    Service(Frontend),
    /// One endpoint of a Service.
    Endpoint(Frontend, u32),
    /// The number of the endpoint in a slot, where clients stay with an endpoint.
    AffinitySlot(Frontend, u32),
    /// The endpoint of a number.
    AffinityEndpoint(Frontend, u32),
    /// What to do with a packet that found no endpoint.
    NoEndpoint(Frontend),
    /// Processes of this host reach it at the loopback address, too.
    LocalhostNodePort(Frontend),
    /// Only source ranges may use it.
    Firewall(Frontend),
    /// A network that may use it.
    SourceRange(Frontend, Box<IpNet>),
    /// A local endpoint, which may reach itself.
    Hairpin(Backend, Protocol),
    /// A ClusterIP in use.
    ClusterIp(IpAddr),
    /// An address of the node that accepts node ports.
    NodePortIp(IpAddr),
    /// A network out of which ClusterIPs come.
    ServiceCidr(IpNet),
}

/// Value of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// It is in the set.
    Present,
    /// An endpoint.
    Endpoint(Backend),
    /// The number of an endpoint.
    EndpointId(u32),
    /// A verdict.
    Verdict(Arc<Action>),
}

/// A verdict, and which ServicePort wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) target: Target,
    /// Comment of the element.
    pub(super) comment: Box<str>,
}

/// What a verdict does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// Goes to a chain that is made as needed.
    Chain(Chain),
    /// Refuses.
    Reject,
    /// Drops.
    Drop,
}

impl Frontend {
    /// Where this address of a ServicePort is.
    pub(super) fn of(port: &ServicePortView, address: &ServiceAddress) -> Self {
        Self {
            address: address.ip.map_or(Destination::Node(port.family), Destination::Ip),
            protocol: port.protocol,
            port: address.port,
        }
    }

    pub(in crate::dataplane) fn family(&self) -> Family {
        match self.address {
            Destination::Ip(ip) => Family::of(ip),
            Destination::Node(family) => family,
        }
    }

    fn is_node(&self) -> bool {
        matches!(self.address, Destination::Node(_))
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Destination::Ip(ip) => write!(f, "{ip} . {} . {}", self.protocol, self.port),
            Destination::Node(family) => write!(f, "{} . {} ({family})", self.protocol, self.port),
        }
    }
}

impl Key {
    pub(super) fn family(&self) -> Family {
        match self {
            Self::Service(frontend)
            | Self::Endpoint(frontend, _)
            | Self::AffinitySlot(frontend, _)
            | Self::AffinityEndpoint(frontend, _)
            | Self::NoEndpoint(frontend)
            | Self::LocalhostNodePort(frontend)
            | Self::Firewall(frontend)
            | Self::SourceRange(frontend, _) => frontend.family(),
            Self::Hairpin(backend, _) => Family::of(backend.ip),
            Self::ClusterIp(ip) | Self::NodePortIp(ip) => Family::of(*ip),
            Self::ServiceCidr(network) => Family::of(network.addr()),
        }
    }

    /// The set that it is in.
    pub(super) fn object(&self) -> Object {
        let by_address = |frontend: &Frontend, address, node| if frontend.is_node() { node } else { address };
        match self {
            Self::Service(at) => by_address(at, Object::ServiceIps, Object::ServiceNodePorts),
            Self::Endpoint(at, _) => by_address(at, Object::ServiceEndpoints, Object::NodePortEndpoints),
            Self::AffinitySlot(at, _) => by_address(at, Object::AffinitySlots, Object::NodePortAffinitySlots),
            Self::AffinityEndpoint(at, _) => {
                by_address(at, Object::AffinityEndpoints, Object::NodePortAffinityEndpoints)
            }
            Self::NoEndpoint(at) => by_address(at, Object::NoEndpointServices, Object::NoEndpointNodePorts),
            Self::LocalhostNodePort(_) => Object::LocalhostNodePorts,
            Self::Firewall(_) => Object::RestrictedIps,
            Self::SourceRange(..) => Object::SourceRanges,
            Self::Hairpin(..) => Object::HairpinConnections,
            Self::ClusterIp(_) => Object::ClusterIps,
            Self::NodePortIp(_) => Object::NodePortIps,
            Self::ServiceCidr(_) => Object::ServiceCidrs,
        }
    }

    /// Elements of one group only make sense together: the kernel takes all their changes or none.
    pub(super) fn group(&self) -> Self {
        match self {
            Self::Endpoint(at, _)
            | Self::AffinitySlot(at, _)
            | Self::AffinityEndpoint(at, _)
            | Self::NoEndpoint(at)
            | Self::LocalhostNodePort(at)
            | Self::Firewall(at)
            | Self::SourceRange(at, _) => Self::Service(*at),
            Self::Service(_)
            | Self::Hairpin(..)
            | Self::ClusterIp(_)
            | Self::NodePortIp(_)
            | Self::ServiceCidr(_) => self.clone(),
        }
    }

    /// A packet that saw a verdict or an endpoint from before a transaction may still look for it after. (The
    /// rules of session affinity know what to do when the endpoint of a number is gone.)
    pub(super) fn outlives_verdict(&self) -> bool {
        matches!(
            self,
            Self::Endpoint(..) | Self::AffinitySlot(..) | Self::Hairpin(..)
        )
    }
}

impl fmt::Display for Key {
    /// As nft shows it: the set, then the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{ ", self.object().name())?;
        match self {
            Self::Service(at) | Self::NoEndpoint(at) | Self::LocalhostNodePort(at) | Self::Firewall(at) => {
                write!(f, "{at}")
            }
            Self::Endpoint(at, slot) | Self::AffinitySlot(at, slot) => write!(f, "{at} . {slot}"),
            Self::AffinityEndpoint(at, id) => write!(f, "{at} . {:x}:{:x}", id >> 16, id & 0xffff),
            Self::SourceRange(at, network) => write!(f, "{at} . {network}"),
            Self::Hairpin(at, protocol) => write!(f, "{} . {} . {protocol} . {}", at.ip, at.ip, at.port),
            Self::ClusterIp(ip) | Self::NodePortIp(ip) => write!(f, "{ip}"),
            Self::ServiceCidr(network) => write!(f, "{network}"),
        }?;
        f.write_str(" }")
    }
}

impl Target {
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Chain(chain) => Verdict::Goto(chain.to_string()),
            Self::Reject => Verdict::Goto(super::constant::REJECT_CHAIN.to_owned()),
            Self::Drop => Verdict::Drop,
        }
    }
}

impl Value {
    /// The chain that a verdict goes to.
    pub(super) fn chain(&self) -> Option<Chain> {
        match self {
            Self::Verdict(action) => match action.target {
                Target::Chain(chain) => Some(chain),
                Target::Reject | Target::Drop => None,
            },
            Self::Present | Self::Endpoint(_) | Self::EndpointId(_) => None,
        }
    }
}

/// The comment of a ServicePort's elements: `namespace/name:port`, cut where it would be too long to load.
pub(super) fn comment(service: &str, port_name: &str) -> Box<str> {
    let mut comment = match port_name {
        "" => service.to_owned(),
        port => format!("{service}:{port}"),
    };
    if comment.len() > LONGEST_COMMENT {
        let mut end = LONGEST_COMMENT - 3;
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        comment.truncate(end);
        comment.push_str("...");
    }
    comment.into_boxed_str()
}
