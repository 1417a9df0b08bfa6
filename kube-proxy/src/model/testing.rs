//! Short notations for tests: objects in a line, views as text.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use super::change::Change;
use super::cluster::{Cluster, TrafficConfig};
use super::object::{
    EndpointSlice, Family, Hints, IpMode, LoadBalancerIngress, ObjectName, Protocol, Service, ServicePort,
    ServiceType, SliceEndpoint, SlicePort, TrafficPolicy,
};
use super::view::{AddressKind, Delivery, Endpoint, EndpointList, ServicePortView, ServiceView};

/// The name of the node in [`config`].
pub(crate) const NODE: &str = "this-node";

/// This node with its addresses, telling pods from others in both families.
pub(crate) fn config() -> TrafficConfig {
    TrafficConfig {
        node_name: NODE.into(),
        masquerade_all: false,
        detects_pods: [true, true],
        node_ips: vec![ip("192.168.0.2"), ip("2001:db8::2")],
    }
}

/// A cluster in which these objects were observed.
pub(crate) fn cluster<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Cluster {
    let mut cluster = Cluster::new(config());
    observe(&mut cluster, services, slices);
    cluster
}

/// The view of a Service that is alone in the cluster with these slices.
pub(crate) fn view_of<'a>(
    service: &'a Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> ServiceView {
    cluster([service], slices).resolve(&service.name).unwrap()
}

/// Applies these objects.
pub(crate) fn observe<'a>(
    cluster: &mut Cluster,
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) {
    for service in services {
        cluster.apply(Change::Service(Box::new(service.clone())));
    }
    for slice in slices {
        cluster.apply(Change::EndpointSlice(Box::new(slice.clone())));
    }
}

/// An address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `namespace/name`.
pub(crate) fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName::new(namespace, name)
}

/// `TCP`, `UDP` or `SCTP`.
fn protocol(text: &str) -> Protocol {
    let mut all = Protocol::ALL.into_iter();
    all.find(|protocol| protocol.to_string() == text).unwrap()
}

/// A ClusterIP Service `namespace/name` with cluster IPs and ports, each a list with blanks between. A port
/// is `name/PROTOCOL:port`, `:nodePort` may follow.
pub(crate) fn service(full_name: &str, cluster_ips: &str, ports: &str) -> Service {
    let cluster_ips: Vec<_> = cluster_ips.split_whitespace().map(ip).collect();
    let ports = ports.split_whitespace().map(|port| {
        let (name, rest) = port.split_once('/').unwrap();
        let mut rest = rest.split(':');
        ServicePort {
            name: name.into(),
            protocol: protocol(rest.next().unwrap()),
            port: rest.next().unwrap().parse().unwrap(),
            node_port: rest.next().map_or(0, |port| port.parse().unwrap()),
        }
    });
    Service {
        cluster_ip: cluster_ips.first().copied(),
        ip_families: cluster_ips.iter().copied().map(Family::of).collect(),
        cluster_ips: cluster_ips.into_iter().map(Some).collect(),
        ports: ports.collect(),
        ..Service::new(name(full_name))
    }
}

impl Service {
    /// With another type.
    pub(crate) fn of_type(mut self, service_type: ServiceType) -> Self {
        self.service_type = service_type;
        self
    }

    /// With these external IPs.
    pub(crate) fn with_external_ips(mut self, ips: &str) -> Self {
        self.external_ips = ips.split_whitespace().map(ip).collect();
        self
    }

    /// Of type LoadBalancer with these addresses (ipMode VIP).
    pub(crate) fn with_load_balancer(mut self, ips: &str) -> Self {
        let ip_mode = IpMode::Vip;
        let ingress = ips.split_whitespace().map(|text| LoadBalancerIngress {
            ip: ip(text),
            ip_mode,
        });
        self.load_balancer_ingress = ingress.collect();
        self.of_type(ServiceType::LoadBalancer)
    }

    /// With these loadBalancerSourceRanges.
    pub(crate) fn with_source_ranges(mut self, ranges: &str) -> Self {
        self.source_ranges = ranges
            .split_whitespace()
            .map(|range| range.parse().unwrap())
            .collect();
        self
    }

    /// With internalTrafficPolicy and externalTrafficPolicy.
    pub(crate) fn with_policies(mut self, internal: TrafficPolicy, external: TrafficPolicy) -> Self {
        (self.internal_traffic_policy, self.external_traffic_policy) = (internal, external);
        self
    }

    /// With session affinity for so many seconds.
    pub(crate) fn with_affinity(mut self, seconds: u32) -> Self {
        self.session_affinity = Some(seconds);
        self
    }

    /// With this age.
    pub(crate) fn created(mut self, seconds: i64) -> Self {
        self.created = Some(seconds);
        self
    }
}

/// A slice `namespace/name` of a Service. Ports like `name/PROTOCOL:port` with blanks between; each endpoint
/// as [`endpoint`] reads it. The family is that of the first endpoint.
pub(crate) fn slice(full_name: &str, service: &str, ports: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    let ports = ports.split_whitespace().map(|port| {
        let (name, rest) = port.split_once('/').unwrap();
        let (protocol_name, number) = rest.split_once(':').unwrap();
        SlicePort {
            name: name.into(),
            protocol: protocol(protocol_name),
            port: number.parse().unwrap(),
        }
    });
    EndpointSlice {
        name: name(full_name),
        service: Some(service.into()),
        family: endpoints
            .first()
            .map_or(Family::V4, |endpoint| Family::of(endpoint.ip)),
        last_change_trigger: None,
        ports: ports.collect(),
        endpoints,
        ipvs_weight: None,
    }
}

/// An address, then words: `local` (else it is on another node), `unready`, `serving` (but not ready),
/// `terminating` (and serving), `stopped` (terminating, not serving), `zone:NAME` and `node:NAME` for hints.
pub(crate) fn endpoint(text: &str) -> SliceEndpoint {
    let mut words = text.split_whitespace();
    let mut endpoint = SliceEndpoint {
        ip: ip(words.next().unwrap()),
        ready: true,
        serving: true,
        terminating: false,
        node_name: Some("other-node".into()),
        hints: None,
    };
    let mut hints = Hints::default();
    for word in words {
        match word {
            "local" => endpoint.node_name = Some(NODE.into()),
            "unready" => (endpoint.ready, endpoint.serving) = (false, false),
            "serving" => endpoint.ready = false,
            "terminating" => (endpoint.ready, endpoint.terminating) = (false, true),
            "stopped" => (endpoint.ready, endpoint.serving, endpoint.terminating) = (false, false, true),
            hint => match hint.split_once(':').unwrap() {
                ("zone", zone) => hints.zones.push(zone.into()),
                ("node", node) => hints.nodes.push(node.into()),
                _ => panic!("no such word: {hint}"),
            },
        }
    }
    endpoint.hints = (hints != Hints::default()).then(|| Arc::new(hints));
    endpoint
}

/// Every address of a view: `name/PROTOCOL kind address:port`, and `from ranges` if it has some.
pub(crate) fn addresses(view: &ServiceView) -> Vec<String> {
    let mut lines = Vec::new();
    for port in &view.ports {
        for address in &port.addresses {
            let ip = address
                .ip
                .map_or_else(|| format!("{} *", port.family), |ip| ip.to_string());
            let kind = address.kind;
            let mut line = format!("{} {kind:?} {ip} {}", title(port), address.port);
            for (index, range) in address.source_ranges.iter().flatten().enumerate() {
                let word = if index == 0 { " from " } else { "," };
                write!(line, "{word}{range}").unwrap();
            }
            lines.push(line);
        }
    }
    lines
}

/// The endpoints of every port: `name/PROTOCOL: cluster list | local list`, a local endpoint with a star.
pub(crate) fn endpoints(view: &ServiceView) -> Vec<String> {
    let list = |endpoints: &[Endpoint]| -> String {
        let text = |endpoint: &Endpoint| {
            let star = if endpoint.is_local { "*" } else { "" };
            format!(" {}:{}{star}", endpoint.ip, endpoint.port)
        };
        endpoints.iter().map(text).collect()
    };
    let line = |port: &ServicePortView| {
        let (cluster, local) = (list(&port.cluster_endpoints), list(&port.local_endpoints));
        format!("{}:{cluster} |{local}", title(port))
    };
    view.ports.iter().map(line).collect()
}

/// The endpoints of every port to which flows may live on: `name/PROTOCOL: list`.
pub(crate) fn flow_endpoints(view: &ServiceView) -> Vec<String> {
    let line = |port: &ServicePortView| {
        let endpoints = port.flow_endpoints.iter();
        let list: String = endpoints.map(|endpoint| format!(" {endpoint}")).collect();
        format!("{}:{list}", title(port))
    };
    view.ports.iter().map(line).collect()
}

fn title(port: &ServicePortView) -> String {
    format!("{}/{}", port.port_name, port.protocol)
}

/// What becomes of traffic to the first address of a kind from pods, the host and outside: the list, with
/// `snat` when masqueraded, or `reject` or `drop`.
pub(crate) fn deliveries(view: &ServiceView, kind: AddressKind) -> [&'static str; 3] {
    let mut addresses = view.ports.iter().flat_map(|port| &port.addresses);
    let address = addresses.find(|address| address.kind == kind).unwrap();
    [address.from_pods, address.from_host, address.from_outside].map(|delivery| match delivery {
        Delivery::To {
            endpoints,
            masquerade,
        } => match (endpoints, masquerade) {
            (EndpointList::Cluster, false) => "cluster",
            (EndpointList::Cluster, true) => "cluster snat",
            (EndpointList::Local, false) => "local",
            (EndpointList::Local, true) => "local snat",
        },
        Delivery::Reject => "reject",
        Delivery::Drop => "drop",
    })
}
