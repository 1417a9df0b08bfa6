//! What becomes of a packet, told from the objects and the rules of Kubernetes alone, as plainly as it can be
//! told: nothing of the model or of the plan is used. Slow, and meant to be. Where a mode differs it asks for the
//! difference by its name.

mod endpoints;

use std::collections::{BTreeMap, BTreeSet};

use self::endpoints::{in_cluster, is_usable, on_this_node};
use super::modes::Difference;
use super::*;
use crate::model::object::{IpMode, ServicePort, ServiceType, SliceEndpoint, TrafficPolicy};

/// A cluster as it is observed, and the node that looks at it.
#[derive(Clone)]
pub(in crate::dataplane) struct World {
    pub(super) setup: Setup,
    /// Each name once.
    pub(super) services: Vec<Service>,
    /// Each name once.
    pub(super) slices: Vec<EndpointSlice>,
}

/// Where a packet comes from, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Pod,
    Host,
    Other,
}

/// In which way a ServicePort has an address. The first that applies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    ClusterIp,
    LoadBalancerIp,
    ExternalIp,
    NodePort,
}

/// A ServicePort that wants a destination. The least one gets it: the oldest Service, then the first by name;
/// in a Service the first port.
type Claim<'a> = (bool, Option<i64>, (&'a str, &'a str), usize, Kind);

/// An endpoint of a ServicePort.
#[derive(Clone, Copy)]
struct Endpoint<'a> {
    at: SocketAddr,
    is_here: bool,
    held: &'a SliceEndpoint,
}

impl World {
    /// Everything that may become of a packet, each as likely as the other.
    pub(super) fn outcomes(&self, packet: &Packet) -> BTreeSet<Outcome> {
        let destination = packet.destination;
        let outcome = match self.served_by(packet) {
            Some((service, port, kind)) if self.is_kept_out(service, port, kind, packet) => Outcome::Dropped,
            Some((service, port, kind)) => return self.served(service, port, kind, packet),
            None if self.is_cluster_ip(destination) && !self.differs(Difference::UndefinedPort) => {
                Outcome::Rejected
            }
            None if self.is_unallocated(destination) && !self.differs(Difference::UnallocatedClusterIp) => {
                Outcome::Dropped
            }
            None => self.of_a_closed_node_port(packet),
        };
        BTreeSet::from([outcome])
    }

    /// Which endpoints of which ServicePort a client stays with, if it does: Service, port and protocol, and whether
    /// it is the list of this node's endpoints, if lists are told apart. Its addresses are all one.
    pub(super) fn affinity(&self, packet: &Packet) -> Option<(&ObjectName, &str, Protocol, bool)> {
        let (service, port, kind) = self.served_by(packet)?;
        if self.is_kept_out(service, port, kind, packet) {
            return None;
        }
        let (local, _) = self.entitled(service, kind, packet);
        let local = local && !self.differs(Difference::MemoryOfAnEndpoint);
        service
            .session_affinity
            .map(|_| (&service.name, &*port.name, port.protocol, local))
    }

    fn differs(&self, difference: Difference) -> bool {
        difference.is_in(self.setup.mode)
    }

    /// Who has the packet's destination: an address, or else a node port of this node's addresses.
    fn served_by(&self, packet: &Packet) -> Option<(&Service, &ServicePort, Kind)> {
        if packet.destination.is_loopback() {
            return match self.differs(Difference::LoopbackNodePorts) {
                true if self.routes_loopback(packet.destination) => self.holder(packet, &[Kind::NodePort]),
                true => None,
                false => self.served_at_loopback(packet),
            };
        }
        let by_address = [Kind::ClusterIp, Kind::LoadBalancerIp, Kind::ExternalIp];
        let by_node_port = || match self.accepts_node_ports(packet.destination) {
            true => self.holder(packet, &[Kind::NodePort]),
            false => None,
        };
        self.holder(packet, &by_address).or_else(by_node_port)
    }

    /// Node ports are at the loopback address for processes of this host, by TCP and UDP, as long as there are
    /// endpoints for them.
    fn served_at_loopback(&self, packet: &Packet) -> Option<(&Service, &ServicePort, Kind)> {
        self.setup.localhost[Family::of(packet.destination) as usize]?;
        let is_sctp = matches!(packet.transport, Transport::To(Protocol::Sctp, _));
        let at_localhost = ips("127.0.0.1 ::1").contains(&packet.destination);
        let (service, port, kind) = self.holder(packet, &[Kind::NodePort])?;
        let served = self.served(service, port, kind, packet);
        let goes_on = matches!(served.first(), Some(Outcome::To { .. }));
        (at_localhost && !is_sctp && goes_on).then_some((service, port, kind))
    }

    /// Node ports are at this address of the loopback network as they are at others of the node.
    fn routes_loopback(&self, ip: IpAddr) -> bool {
        let v4 = Family::V4 as usize;
        let chosen = &self.setup.node_port_addresses[v4];
        let covered = *chosen == NodePortAddresses::All || ip == testing::ip("127.0.0.1");
        ip.is_ipv4() && self.setup.localhost[v4].is_some() && covered
    }

    /// What becomes of a packet to an address of this node that accepts no node ports, or to none of ours.
    fn of_a_closed_node_port(&self, packet: &Packet) -> Outcome {
        let ip = packet.destination;
        if !self.differs(Difference::RefusedNodePort) || !self.is_here(ip) {
            return Outcome::NotOurs;
        }
        let Some((service, port, _)) = self.holder(packet, &[Kind::NodePort]) else {
            return Outcome::NotOurs;
        };
        let endpoints = self.endpoints(service, port, Family::of(ip));
        if in_cluster(&endpoints, self.setup.zone).is_empty() {
            Outcome::Rejected
        } else if external_policy(service) == TrafficPolicy::Local && on_this_node(&endpoints).is_empty() {
            Outcome::Dropped
        } else {
            Outcome::NotOurs
        }
    }

    fn is_cluster_ip(&self, ip: IpAddr) -> bool {
        let has =
            |service: &Service| cluster_ip(service, Family::of(ip)) == Some(ip) && !service.ports.is_empty();
        self.services.iter().any(has)
    }

    fn is_unallocated(&self, ip: IpAddr) -> bool {
        self.setup
            .service_cidrs
            .iter()
            .any(|network| network.contains(&ip))
    }

    /// Who has the packet's destination, in one of these ways.
    fn holder(&self, packet: &Packet, kinds: &[Kind]) -> Option<(&Service, &ServicePort, Kind)> {
        let mut claims: Vec<(Claim<'_>, &Service, &ServicePort)> = Vec::new();
        for service in &self.services {
            for (index, port) in service.ports.iter().enumerate() {
                for kind in kinds {
                    if wants(service, port, *kind, packet) {
                        let name = (&*service.name.namespace, &*service.name.name);
                        let claim = (service.created.is_none(), service.created, name, index, *kind);
                        claims.push((claim, service, port));
                    }
                }
            }
        }
        let first = claims.into_iter().min_by_key(|(claim, ..)| *claim);
        first.map(|((.., kind), service, port)| (service, port, kind))
    }

    /// loadBalancerSourceRanges.
    fn is_kept_out(&self, service: &Service, port: &ServicePort, kind: Kind, packet: &Packet) -> bool {
        if kind != Kind::LoadBalancerIp {
            return false;
        }
        let family = Family::of(packet.destination);
        let ranges = service.source_ranges.iter();
        let ranges: Vec<_> = ranges
            .filter(|range| Family::of(range.addr()) == family)
            .collect();
        let holds = |ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
        let holds_node = self.setup.node_ips.iter().any(|ip| holds(*ip));
        let is_itself = match self.differs(Difference::HolderOfAnAddress) {
            true => service
                .load_balancer_ingress
                .iter()
                .any(|at| at.ip == packet.source && at.ip_mode == IpMode::Vip),
            false => packet.source == packet.destination,
        };
        let endpoints = self.endpoints(service, port, family);
        let asks = !self.differs(Difference::SourceRangesWithoutEndpoints)
            || endpoints.iter().any(|endpoint| is_usable(endpoint.held));
        asks && !(ranges.is_empty() || holds(packet.source) || (holds_node && is_itself))
    }

    fn accepts_node_ports(&self, ip: IpAddr) -> bool {
        match &self.setup.node_port_addresses[Family::of(ip) as usize] {
            NodePortAddresses::All => self.is_of_this_node(ip),
            NodePortAddresses::Only(chosen) => chosen.contains(&ip),
        }
    }

    fn is_of_this_node(&self, ip: IpAddr) -> bool {
        self.setup.interface_addresses.contains(&ip)
    }

    /// Of this node, or of the loopback network.
    fn is_here(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.is_of_this_node(ip)
    }

    fn class(&self, packet: &Packet) -> Class {
        let came_through = |wanted: &dyn Fn(&str) -> bool| match &packet.origin {
            Origin::Interface(name) => wanted(name),
            Origin::Host => false,
        };
        let is_pod = match self.detector(packet) {
            LocalTraffic::Unknown => false,
            LocalTraffic::Cidr(network) => network.contains(&packet.source),
            LocalTraffic::Interface(name) => came_through(&|interface| interface == name),
            LocalTraffic::InterfacePrefix(prefix) => came_through(&|interface| interface.starts_with(prefix)),
        };
        match is_pod {
            true => Class::Pod,
            false if self.is_here(packet.source) => Class::Host,
            false => Class::Other,
        }
    }

    fn detector(&self, packet: &Packet) -> &LocalTraffic {
        &self.setup.local_traffic[Family::of(packet.source) as usize]
    }

    /// The table of who gets which endpoints (those of this node only, or all), and whose source is replaced.
    fn entitled(&self, service: &Service, kind: Kind, packet: &Packet) -> (bool, bool) {
        let (class, detects) = (
            self.class(packet),
            *self.detector(packet) != LocalTraffic::Unknown,
        );
        match kind {
            Kind::ClusterIp => {
                let local = service.internal_traffic_policy == TrafficPolicy::Local;
                (
                    local,
                    self.setup.masquerade_all || (detects && class != Class::Pod),
                )
            }
            _ => match (external_policy(service), class) {
                (TrafficPolicy::Cluster, _) => (false, true),
                (TrafficPolicy::Local, Class::Pod) => (false, false),
                (TrafficPolicy::Local, Class::Host) => (false, true),
                (TrafficPolicy::Local, Class::Other) => (true, false),
            },
        }
    }

    fn served(
        &self,
        service: &Service,
        port: &ServicePort,
        kind: Kind,
        packet: &Packet,
    ) -> BTreeSet<Outcome> {
        let endpoints = self.endpoints(service, port, Family::of(packet.destination));
        let (local, masquerade) = self.entitled(service, kind, packet);
        let list = match local {
            true => on_this_node(&endpoints),
            false => in_cluster(&endpoints, self.setup.zone),
        };
        if list.is_empty() {
            let leaves = packet.origin == Origin::Host && !self.is_here(packet.destination);
            let none = if endpoints.iter().any(|endpoint| is_usable(endpoint.held)) {
                Outcome::Dropped
            } else if kind != Kind::ClusterIp && leaves && self.differs(Difference::HostToRefusedAddress) {
                Outcome::NotOurs
            } else {
                Outcome::Rejected
            };
            return BTreeSet::from([none]);
        }
        let outcome = |endpoint: &Endpoint<'_>| {
            let is_here = endpoint.is_here || self.differs(Difference::EndpointToItself);
            let is_itself = is_here && endpoint.at.ip() == packet.source;
            // What came in and ends here is never on its way out, where sources are replaced.
            let leaves = packet.origin == Origin::Host || !self.is_of_this_node(endpoint.at.ip());
            Outcome::To {
                endpoint: endpoint.at,
                masqueraded: leaves && (masquerade || is_itself),
            }
        };
        list.iter().map(outcome).collect()
    }

    /// All endpoints of a ServicePort, each address and port once: of two with the same the one that is not
    /// terminating, then the ready one, then the serving one; then the one in the first slice.
    fn endpoints<'a>(&'a self, service: &Service, port: &ServicePort, family: Family) -> Vec<Endpoint<'a>> {
        let mut slices: Vec<&EndpointSlice> = self.slices.iter().collect();
        slices.sort_by(|a, b| a.name.cmp(&b.name));
        let mut found: BTreeMap<SocketAddr, Endpoint<'a>> = BTreeMap::new();
        for slice in slices {
            let is_ours = slice.name.namespace == service.name.namespace
                && slice.service.as_deref() == Some(&*service.name.name)
                && slice.family == family;
            let mut ports = slice.ports.iter();
            let number = ports.find(|other| other.name == port.name && other.protocol == port.protocol);
            let (true, Some(number)) = (is_ours, number) else {
                continue;
            };
            for held in &slice.endpoints {
                let endpoint = Endpoint {
                    at: SocketAddr::new(held.ip, number.port),
                    is_here: held.node_name.as_deref() == Some(testing::NODE),
                    held,
                };
                let standing = |held: &SliceEndpoint| (!held.terminating, held.ready, held.serving);
                let present = found.entry(endpoint.at).or_insert(endpoint);
                if standing(held) > standing(present.held) {
                    *present = endpoint;
                }
            }
        }
        found.into_values().collect()
    }
}

/// The port wants the packet's destination in this way.
fn wants(service: &Service, port: &ServicePort, kind: Kind, packet: &Packet) -> bool {
    let Transport::To(protocol, number) = packet.transport else {
        return false;
    };
    let ip = packet.destination;
    let cluster_ip = cluster_ip(service, Family::of(ip));
    if cluster_ip.is_none() || port.protocol != protocol {
        return false;
    }
    if kind == Kind::NodePort {
        return port.node_port != 0 && port.node_port == number;
    }
    let mut ingress = service.load_balancer_ingress.iter();
    port.port == number
        && match kind {
            Kind::ClusterIp => cluster_ip == Some(ip),
            Kind::LoadBalancerIp => ingress.any(|at| at.ip == ip && at.ip_mode == IpMode::Vip),
            Kind::ExternalIp | Kind::NodePort => service.external_ips.contains(&ip),
        }
}

/// The cluster IP of one family; none when the Service is not proxied in it.
fn cluster_ip(service: &Service, family: Family) -> Option<IpAddr> {
    if service.headless || service.service_type == ServiceType::ExternalName {
        return None;
    }
    let ips = service.cluster_ips.iter().flatten();
    ips.copied().find(|ip| Family::of(*ip) == family)
}

/// externalTrafficPolicy, where something outside can reach the Service.
fn external_policy(service: &Service) -> TrafficPolicy {
    match service.service_type {
        ServiceType::NodePort | ServiceType::LoadBalancer => service.external_traffic_policy,
        _ if !service.external_ips.is_empty() => service.external_traffic_policy,
        _ => TrafficPolicy::Cluster,
    }
}
