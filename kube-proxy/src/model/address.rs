//! The addresses that a Service asks for, who else may claim them, and which sources may use them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cluster::TrafficConfig;
use super::object::{Family, IpMode, ObjectName, Protocol, Service, ServicePort, ServiceType};
use super::view::AddressKind;

/// What only one ServicePort of the cluster can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    /// An address and port, whichever way a Service came to it.
    Address {
        ip: IpAddr,
        protocol: Protocol,
        port: u16,
    },
    /// A port of the node.
    NodePort {
        family: Family,
        protocol: Protocol,
        port: u16,
    },
}

/// Who wants a [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) service: ObjectName,
    /// Index in `spec.ports`.
    pub(super) port: usize,
}

/// One address that a ServicePort asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) kind: AddressKind,
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) destination: Destination,
}

/// The families in which a Service is proxied, with its cluster IP: none for a headless or ExternalName
/// Service and one without cluster IP.
pub(super) fn families(service: &Service) -> impl Iterator<Item = (Family, IpAddr)> {
    let proxied = !service.headless && service.service_type != ServiceType::ExternalName;
    let families = Family::ALL.into_iter().filter(move |_| proxied);
    families.filter_map(|family| Some((family, cluster_ip(service, family)?)))
}

/// The cluster IP of one family: `clusterIPs` are parallel to `ipFamilies`; an old object has neither.
fn cluster_ip(service: &Service, family: Family) -> Option<IpAddr> {
    let ip = if service.ip_families.is_empty() || service.cluster_ips.is_empty() {
        service.cluster_ip
    } else {
        let index = service.ip_families.iter().position(|other| *other == family)?;
        service.cluster_ips.get(index).copied().flatten()
    };
    ip.filter(|ip| Family::of(*ip) == family)
}

/// Everything that one port of a Service asks for in one family. An address may occur twice; the first one
/// counts, so those of a load balancer, which source ranges may guard, come before external IPs.
pub(super) fn wanted(
    service: &Service,
    port: &ServicePort,
    family: Family,
    cluster_ip: IpAddr,
) -> impl Iterator<Item = Wanted> {
    let (protocol, number, node_port) = (port.protocol, port.port, port.node_port);
    let vips = service.load_balancer_ingress.iter();
    let vips = vips.filter(|ingress| ingress.ip_mode == IpMode::Vip);
    let addresses = std::iter::once((AddressKind::ClusterIp, cluster_ip))
        .chain(vips.map(|ingress| (AddressKind::LoadBalancerIp, ingress.ip)))
        .chain(
            service
                .external_ips
                .iter()
                .map(|ip| (AddressKind::ExternalIp, *ip)),
        )
        .filter(move |(_, ip)| Family::of(*ip) == family)
        .map(move |(kind, ip)| Wanted {
            kind,
            ip: Some(ip),
            port: number,
            destination: Destination::Address {
                ip,
                protocol,
                port: number,
            },
        });
    let node_port = (node_port != 0).then_some(Wanted {
        kind: AddressKind::NodePort,
        ip: None,
        port: node_port,
        destination: Destination::NodePort {
            family,
            protocol,
            port: node_port,
        },
    });
    addresses.chain(node_port)
}

/// Every destination that a Service asks for, in the order in which its ports get them.
pub(super) fn claims(service: &Service) -> Vec<(Destination, Claimant)> {
    let mut claims = Vec::new();
    for (index, port) in service.ports.iter().enumerate() {
        for (family, cluster_ip) in families(service) {
            claims.extend(wanted(service, port, family, cluster_ip).map(|wanted| {
                let claimant = Claimant {
                    service: service.name.clone(),
                    port: index,
                };
                (wanted.destination, claimant)
            }));
        }
    }
    claims
}

/// The sources that may use a load-balancer address, disjoint and sorted; `None` for anyone. Ranges of the
/// other family restrict nothing in this one, and none at all restrict nobody. When a range holds the node,
/// the node's own traffic is allowed, which comes from the load-balancer address itself.
pub(super) fn source_ranges(service: &Service, vip: IpAddr, config: &TrafficConfig) -> Option<Vec<IpNet>> {
    let family = Family::of(vip);
    let ranges = service
        .source_ranges
        .iter()
        .filter(|range| Family::of(range.addr()) == family);
    let mut ranges: Vec<_> = ranges.map(IpNet::trunc).collect();
    let holds_node = |range: &IpNet| config.node_ips.iter().any(|ip| range.contains(ip));
    if ranges.iter().any(holds_node) {
        ranges.push(IpNet::from(vip));
    }
    let ranges = IpNet::aggregate(&ranges);
    let open = ranges.iter().any(|range| range.prefix_len() == 0);
    (!open && !ranges.is_empty()).then_some(ranges)
}
