//! The books of UDP and SCTP: which frontends there are, to which endpoints their flows may live on, and where a
//! change can have left stale ones. Pure: views come in, and flows, as the kernel has them, are judged.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::object::{Family, ObjectName, Protocol};
use crate::model::view::{ServiceAddress, ServicePortView, ServiceView};

/// Where clients reach a ServicePort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Frontend {
    /// An address and port.
    Address(Protocol, SocketAddr),
    /// A port of this machine's addresses of one family.
    NodePort(Protocol, Family, u16),
}

impl Frontend {
    /// Where this address of a ServicePort is.
    pub(super) fn of(port: &ServicePortView, address: &ServiceAddress) -> Self {
        match address.ip {
            Some(ip) => Self::Address(port.protocol, SocketAddr::new(ip, address.port)),
            None => Self::NodePort(port.protocol, port.family, address.port),
        }
    }

    fn family(self) -> Family {
        match self {
            Self::Address(_, at) => Family::of(at.ip()),
            Self::NodePort(_, family, _) => family,
        }
    }

    fn protocol(self) -> Protocol {
        let (Self::Address(protocol, _) | Self::NodePort(protocol, ..)) = self;
        protocol
    }
}

/// A tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    /// Whom the client asked.
    pub(super) asked: SocketAddr,
    /// Who answers: where the packets go.
    pub(super) answering: SocketAddr,
    /// It is tracked in a zone of its own, as the switches of some pod networks do it beside the node.
    pub(super) zoned: bool,
    /// An answer was seen.
    pub(super) answered: bool,
}

impl Flow {
    /// It went to an endpoint, and nothing came back so far.
    pub(super) fn awaits_answer(&self) -> bool {
        self.is_redirected() && !self.answered
    }

    /// Somebody gave it another destination than it asked for.
    fn is_redirected(&self) -> bool {
        self.asked != self.answering
    }
}

/// What is known of all Services with UDP or SCTP ports; others take no room.
#[derive(Debug, Default)]
pub(super) struct Flows {
    services: HashMap<ObjectName, Vec<Frontend>>,
    frontends: HashMap<Frontend, Held>,
    /// Where clients find Services only.
    service_cidrs: Vec<IpNet>,
    /// Where there may be stale flows once what was noted is in force.
    noted: Due,
    /// Where there may be stale flows now.
    due: Due,
}

/// A frontend that a Service has.
#[derive(Debug)]
struct Held {
    service: ObjectName,
    /// To these flows may live on; sorted.
    endpoints: Arc<[SocketAddr]>,
}

/// Where to look for stale flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) frontends: HashSet<Frontend>,
    /// All addresses of these networks.
    pub(super) networks: HashSet<IpNet>,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.networks.is_empty()
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.frontends.extend(other.frontends);
        self.networks.extend(other.networks);
    }

    /// Some of it is a node port, so that it takes this machine's addresses to tell whose flow is meant.
    pub(super) fn has_node_ports(&self) -> bool {
        let is_node_port = |frontend: &Frontend| matches!(frontend, Frontend::NodePort(..));
        self.frontends.iter().any(is_node_port)
    }

    /// The flows of this family and protocol that have to be looked at, and perhaps some more: what the kernel
    /// can sort out by itself. `None` when there are none.
    pub(super) fn filter(&self, family: Family, protocol: Protocol) -> Option<Filter> {
        let all = Filter {
            family,
            protocol,
            ip: None,
            port: None,
        };
        if self
            .networks
            .iter()
            .any(|network| Family::of(network.addr()) == family)
        {
            return Some(all);
        }
        let of_kind = |frontend: &Frontend| (frontend.family(), frontend.protocol()) == (family, protocol);
        let each =
            self.frontends
                .iter()
                .filter(|frontend| of_kind(frontend))
                .map(|frontend| match *frontend {
                    Frontend::Address(_, at) => (Some(at.ip()), Some(at.port())),
                    Frontend::NodePort(_, _, port) => (None, Some(port)),
                });
        // What all of them have in common, which for one Service is often everything.
        let common =
            each.reduce(|(ip, port), other| (ip.filter(|_| ip == other.0), port.filter(|_| port == other.1)));
        common.map(|(ip, port)| Filter { ip, port, ..all })
    }
}

/// Flows by where their clients asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) family: Family,
    pub(super) protocol: Protocol,
    /// Only those that asked at this address.
    pub(super) ip: Option<IpAddr>,
    /// Only those that asked at this port.
    pub(super) port: Option<u16>,
}

/// One look through the kernel's table.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) due: Due,
    /// This machine's addresses; loopback networks count without being named.
    pub(super) local: HashSet<IpAddr>,
}

impl Look {
    /// The frontends that a flow can have come by: the one that rules look for first comes first.
    fn frontends(&self, flow: &Flow) -> impl Iterator<Item = Frontend> {
        let at = flow.asked;
        let is_local = at.ip().is_loopback() || self.local.contains(&at.ip());
        let node_port = Frontend::NodePort(flow.protocol, Family::of(at.ip()), at.port());
        let address = Frontend::Address(flow.protocol, at);
        [address].into_iter().chain(is_local.then_some(node_port))
    }

    /// The flow is one of those to look at.
    pub(super) fn concerns(&self, flow: &Flow) -> bool {
        let Due { frontends, networks } = &self.due;
        flow.protocol != Protocol::Tcp
            && (self.frontends(flow).any(|frontend| frontends.contains(&frontend))
                || networks.iter().any(|network| network.contains(&flow.asked.ip())))
    }
}

impl Flows {
    /// Takes in what a Service is now (`None`: gone), before it is put in force, so that no flow of the new rules
    /// is ever unknown here. What it makes stale is due when it is in force, see [`Flows::in_force`].
    pub(super) fn note(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        let wanted: Vec<_> = view
            .iter()
            .flat_map(|view| &view.ports)
            .flat_map(frontends)
            .collect();
        let before = if wanted.is_empty() {
            self.services.remove(service)
        } else {
            let frontends = wanted.iter().map(|(frontend, _)| *frontend).collect();
            self.services.insert(service.clone(), frontends)
        };
        for frontend in before.into_iter().flatten() {
            let gone = wanted.iter().all(|(other, _)| *other != frontend);
            // Another Service may have got it meanwhile.
            let ours = |held: &Held| held.service == *service;
            if gone && self.frontends.get(&frontend).is_some_and(ours) {
                self.frontends.remove(&frontend);
                self.noted.frontends.insert(frontend);
            }
        }
        for (frontend, endpoints) in wanted {
            let held = Held {
                service: service.clone(),
                endpoints: Arc::clone(&endpoints),
            };
            let before = self.frontends.insert(frontend, held);
            if leaves_stale(before.map(|held| held.endpoints).as_deref(), &endpoints) {
                self.noted.frontends.insert(frontend);
            }
        }
    }

    /// Node ports are accepted on other addresses than before.
    pub(super) fn node_ports_moved(&mut self, family: Family) {
        let is_node_port =
            |frontend: &&Frontend| matches!(frontend, Frontend::NodePort(_, of, _) if *of == family);
        self.noted
            .frontends
            .extend(self.frontends.keys().filter(is_node_port));
    }

    /// The networks that addresses of Services come from, and nobody else's. In one that is new there may be
    /// flows to a Service that was deleted while nobody looked.
    pub(super) fn set_service_cidrs(&mut self, cidrs: Vec<IpNet>) {
        let new = cidrs.iter().filter(|cidr| !self.service_cidrs.contains(cidr));
        self.noted.networks.extend(new);
        self.service_cidrs = cidrs;
    }

    /// For a while there were no rules, or others: any flow may have begun without what is wanted.
    pub(super) fn rules_were_lost(&mut self) {
        self.noted.frontends.extend(self.frontends.keys());
    }

    /// All that was noted is in force.
    pub(super) fn in_force(&mut self) {
        self.due.merge(std::mem::take(&mut self.noted));
    }

    /// Where to look, if anywhere.
    pub(super) fn due(&self) -> &Due {
        &self.due
    }

    /// Hands over where to look.
    pub(super) fn take_due(&mut self) -> Due {
        std::mem::take(&mut self.due)
    }

    /// The flow goes where nothing sends it any more.
    pub(super) fn is_stale(&self, flow: &Flow, look: &Look) -> bool {
        if !look.concerns(flow) {
            return false;
        }
        match look
            .frontends(flow)
            .find_map(|frontend| self.frontends.get(&frontend))
        {
            // In another zone it may look untouched: there it is tracked on its way to the rules.
            Some(held) => {
                held.endpoints.binary_search(&flow.answering).is_err()
                    && (flow.is_redirected() || !flow.zoned)
            }
            // Nobody's any more. What goes where it asked to go is not, and never was, a Service's.
            None => flow.is_redirected(),
        }
    }
}

/// Every frontend of a ServicePort, with where its flows may live on; none for TCP.
fn frontends(port: &ServicePortView) -> Vec<(Frontend, Arc<[SocketAddr]>)> {
    if port.protocol == Protocol::Tcp {
        return Vec::new();
    }
    let endpoints: Arc<[SocketAddr]> = port.flow_endpoints.as_slice().into();
    let addresses = port.addresses.iter();
    addresses
        .map(|address| (Frontend::of(port, address), Arc::clone(&endpoints)))
        .collect()
}

/// A frontend's change can leave stale flows: it is new or got its first endpoint, and so its flows were left as
/// they came, or some may no longer go where they went.
fn leaves_stale(before: Option<&[SocketAddr]>, now: &[SocketAddr]) -> bool {
    match before {
        None => true,
        Some([]) => !now.is_empty(),
        Some(before) => before.iter().any(|endpoint| now.binary_search(endpoint).is_err()),
    }
}
