//! What the mode wants in the kernel, as keys and values of its ledger.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::dataplane::nftables::{Backend, Destination, Frontend};
use crate::model::object::{Family, Protocol};

/// Key of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// An address that packets must be delivered to here for IPVS to see them.
    Address(IpAddr),
    /// A virtual server; those of node ports stand for one at each address that accepts node ports.
    Server(Frontend),
}

impl Key {
    pub(super) fn family(&self) -> Family {
        match self {
            Self::Address(ip) => Family::of(*ip),
            Self::Server(frontend) => frontend.family(),
        }
    }
}

/// Value of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Present,
    Server(Arc<Server>),
}

/// How a virtual server chooses, and among whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) settings: Settings,
    /// Sorted, each once.
    pub(super) endpoints: Vec<(Backend, Weight)>,
    /// Other endpoints, sorted, that keep the flows that they have, but get no new ones.
    pub(super) keeping: Vec<Backend>,
}

/// How much of the traffic an endpoint gets, compared with the others. None at 0, but for connections that it has.
pub(super) type Weight = u32;

/// How a virtual server chooses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Settings {
    pub(super) scheduler: Scheduler,
    /// Clients stay with their endpoint until they were silent for so many seconds.
    pub(super) persistence: Option<u32>,
}

/// The name of a scheduler of the kernel, e.g. `rr`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scheduler(Arc<str>);

impl Scheduler {
    pub(super) fn named(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Each endpoint in turn: the one that every kernel with IPVS is expected to have.
    pub(super) fn round_robin() -> Self {
        Self::named("rr")
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The flags that a scheduler wants: `mh` is to tell the ports of a client apart, as upstream has it.
    pub(super) fn flags(&self) -> u32 {
        const IP_VS_SVC_F_SCHED_MH_PORT: u32 = 0x10;
        match &*self.0 {
            "mh" => IP_VS_SVC_F_SCHED_MH_PORT,
            _ => 0,
        }
    }

    /// The module that brings it.
    pub(super) fn module(&self) -> String {
        format!("ip_vs_{}", self.0)
    }
}

/// Where a virtual server of the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) ip: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

impl At {
    /// The frontend of a single address.
    pub(super) fn frontend(self) -> Frontend {
        Frontend {
            address: Destination::Ip(self.ip),
            protocol: self.protocol,
            port: self.port,
        }
    }

    /// The frontend of a node port at this address.
    pub(super) fn node_port(self) -> Frontend {
        Frontend {
            address: Destination::Node(Family::of(self.ip)),
            ..self.frontend()
        }
    }

    /// A connection ends by itself, so an endpoint can be taken out when it has none left.
    pub(super) fn has_connections(self) -> bool {
        self.protocol != Protocol::Udp
    }
}

impl fmt::Display for At {
    /// As `ipvsadm` has it: `TCP 10.96.0.1:443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.protocol,
            std::net::SocketAddr::new(self.ip, self.port)
        )
    }
}
