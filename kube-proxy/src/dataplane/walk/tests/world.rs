//! Random clusters: few addresses and ports, so that Services meet.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::plain::World;
use super::*;
use crate::model::object::{IpMode, LoadBalancerIngress, ServiceType, SliceEndpoint, TrafficPolicy};
use crate::model::testing::{endpoint, service, slice};

/// For how many seconds clients stay with their endpoint, where they do.
pub(super) const AFFINITY: u32 = 600;
const CLUSTER_IPS: [&str; 7] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.1 fd00:96::1",
    "10.96.0.3 fd00:96::3",
    "fd00:96::2 10.96.0.2",
    "fd00:96::2",
    "",
];
const PORTS: [&str; 8] = [
    "p/TCP:80",
    "p/TCP:80:30080",
    "p/UDP:80:30080",
    "q/TCP:81:30081",
    "q/UDP:80",
    "q/TCP:80:30080",
    "r/SCTP:80:30080",
    "r/TCP:81",
];
/// One is the node's own, one a ClusterIP, two a load balancer's.
const EXTERNAL_IPS: [&str; 7] = [
    "198.51.100.1",
    "198.51.100.2",
    "203.0.113.1",
    "192.168.0.2",
    "10.96.0.2",
    "2001:db8:e::1",
    "2001:db8:1b::1",
];
const LOAD_BALANCER_IPS: [&str; 5] = [
    "203.0.113.1",
    "203.0.113.2",
    "198.51.100.1",
    "2001:db8:1b::1",
    "2001:db8:1b::2",
];
const RANGES: [&str; 12] = [
    "192.0.2.0/24",
    "192.0.2.77/25",
    "192.0.2.200/32",
    "192.168.0.0/24",
    "192.168.0.3/32",
    "10.244.0.0/16",
    "10.244.1.0/29",
    "0.0.0.0/0",
    "2001:db8:c::/64",
    "2001:db8::/64",
    "fd00:244:1::/64",
    "::/0",
];
const SLICE_PORTS: [&str; 5] = [
    "p/TCP:8080",
    "p/TCP:8080 q/UDP:8080",
    "p/TCP:9090 q/TCP:8081 r/SCTP:8080",
    "p/TCP:8080 p/UDP:8080 q/TCP:8080 r/TCP:9090",
    "p/UDP:8080 q/UDP:9090 r/SCTP:8080",
];
/// Where an endpoint runs follows from its address.
const ENDPOINTS_V4: [&str; 8] = [
    "10.244.1.1 local",
    "10.244.1.2 local",
    "10.244.1.3 local",
    "10.244.2.1",
    "10.244.2.2",
    "10.244.2.3",
    "192.168.0.2 local",
    "192.168.0.3",
];
const ENDPOINTS_V6: [&str; 5] = [
    "fd00:244:1::1 local",
    "fd00:244:1::2 local",
    "fd00:244:2::1",
    "fd00:244:2::2",
    "2001:db8::2 local",
];
const ZONES: [Option<&str>; 3] = [None, Some("a"), Some("b")];
const INTERFACE_ADDRESSES: &str = "192.168.0.2 192.168.1.2 10.244.1.254 2001:db8::2 fd00:244:1::fe";
/// Load-balancer addresses that the node itself may hold.
const HELD: &str = "203.0.113.1 2001:db8:1b::1";

pub(in crate::dataplane) fn any_world() -> impl Strategy<Value = World> {
    let services = prop::collection::vec(any_service(), 1..5);
    let slices = prop::collection::vec(any_slice(), 0..7);
    (any_setup(), services, slices).prop_map(|(setup, services, slices)| World::new(setup, services, slices))
}

impl World {
    /// Of several objects of one name, the last one counts.
    pub(super) fn new(setup: Setup, services: Vec<Service>, slices: Vec<EndpointSlice>) -> Self {
        let services = services
            .into_iter()
            .map(|service| (service.name.clone(), service));
        let slices = slices.into_iter().map(|slice| (slice.name.clone(), slice));
        Self {
            setup,
            services: services.collect::<BTreeMap<_, _>>().into_values().collect(),
            slices: slices.collect::<BTreeMap<_, _>>().into_values().collect(),
        }
    }

    /// The same in another mode.
    pub(in crate::dataplane) fn in_mode(&self, mode: Mode) -> Self {
        let setup = Setup {
            mode,
            ..self.setup.clone()
        };
        Self {
            setup,
            ..self.clone()
        }
    }

    pub(in crate::dataplane) fn node(&self) -> Node {
        Node::with(&self.setup, &self.services, &self.slices)
    }
}

impl fmt::Debug for World {
    /// A line for each object, so that the example of a failure can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.setup)?;
        for service in &self.services {
            writeln!(f, "{}", service_line(service))?;
        }
        for slice in &self.slices {
            writeln!(f, "{}", slice_lines(slice))?;
        }
        Ok(())
    }
}

fn service_line(service: &Service) -> String {
    let Service {
        name,
        service_type,
        created,
        external_ips,
        source_ranges,
        session_affinity,
        ..
    } = service;
    let cluster_ips: Vec<_> = service.cluster_ips.iter().flatten().collect();
    let ports = service.ports.iter();
    let ports: String = ports
        .map(|port| {
            format!(
                " {}/{}:{}:{}",
                port.name, port.protocol, port.port, port.node_port
            )
        })
        .collect();
    let ingress = service.load_balancer_ingress.iter();
    let ingress: Vec<_> = ingress.map(|at| format!("{} {:?}", at.ip, at.ip_mode)).collect();
    let policies = (service.internal_traffic_policy, service.external_traffic_policy);
    format!(
        "Service {name} {service_type:?} {cluster_ips:?} created {created:?}{ports} external {external_ips:?} \
         ingress {ingress:?} from {source_ranges:?} policies {policies:?} affinity {session_affinity:?}"
    )
}

fn slice_lines(slice: &EndpointSlice) -> String {
    let ports = slice.ports.iter();
    let ports: String = ports
        .map(|port| format!(" {}/{}:{}", port.name, port.protocol, port.port))
        .collect();
    let endpoint = |endpoint: &SliceEndpoint| {
        let conditions = (endpoint.ready, endpoint.serving, endpoint.terminating);
        let (node, hints) = (&endpoint.node_name, &endpoint.hints);
        format!("\n  {} on {node:?} {conditions:?} {hints:?}", endpoint.ip)
    };
    let endpoints: String = slice.endpoints.iter().map(endpoint).collect();
    format!(
        "EndpointSlice {} of {:?}{ports}{endpoints}",
        slice.name, slice.service
    )
}

pub(super) fn any_setup() -> impl Strategy<Value = Setup> {
    let detector = |cluster: &str, node: &str| {
        select(vec![
            LocalTraffic::Unknown,
            LocalTraffic::Cidr(cluster.parse().unwrap()),
            LocalTraffic::Cidr(node.parse().unwrap()),
            LocalTraffic::InterfacePrefix("veth".to_owned()),
            LocalTraffic::Interface("veth9".to_owned()),
        ])
    };
    let detectors = [
        detector("10.244.0.0/16", "10.244.1.0/24"),
        detector("fd00:244::/32", "fd00:244:1::/48"),
    ];
    let node_ips = select(vec!["192.168.0.2 2001:db8::2", "192.168.0.2", ""]);
    let masquerade_all = prop::bool::weighted(0.25);
    let localhost = select(vec![
        [None, None],
        [None, Some("2001:db8::2")],
        ["192.168.0.2", "2001:db8::2"].map(Some),
    ]);
    let addresses = (node_ips, any::<bool>(), any_node_port_addresses(), localhost);
    (
        detectors,
        masquerade_all,
        addresses,
        any_service_cidrs(),
        any_zone(),
    )
        .prop_map(
            |(local_traffic, masquerade_all, addresses, service_cidrs, zone)| {
                let (node_ips, held, node_port_addresses, localhost) = addresses;
                Setup {
                    mode: Mode::Nftables,
                    drops_invalid: true,
                    local_traffic,
                    masquerade_all,
                    node_ips: ips(node_ips),
                    interface_addresses: ips(&format!(
                        "{INTERFACE_ADDRESSES} {}",
                        if held { HELD } else { "" }
                    )),
                    node_port_addresses,
                    localhost: localhost.map(|ip| ip.map(testing::ip)),
                    service_cidrs,
                    zone,
                }
            },
        )
}

pub(super) fn any_service_cidrs() -> impl Strategy<Value = Vec<IpNet>> {
    let networks = |list: &str| {
        list.split_whitespace()
            .map(|network| network.parse().unwrap())
            .collect()
    };
    select(vec![
        networks(""),
        networks("10.96.0.0/16 fd00:96::/112"),
        networks("10.96.0.0/30 10.96.0.8/29"),
        networks("fd00:96::/112 10.96.0.8/31 10.96.0.9/32"),
    ])
}

pub(super) fn any_node_port_addresses() -> impl Strategy<Value = [NodePortAddresses; 2]> {
    let only = |addresses| NodePortAddresses::Only(ips(addresses));
    [
        select(vec![
            NodePortAddresses::All,
            only("192.168.0.2"),
            only("192.168.1.2 10.244.1.254"),
        ]),
        select(vec![NodePortAddresses::All, only("2001:db8::2"), only("")]),
    ]
}

pub(super) fn any_zone() -> impl Strategy<Value = Option<&'static str>> {
    select(&ZONES)
}

pub(super) fn any_service() -> impl Strategy<Value = Service> {
    let policy = || select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let what = (
        select(vec!["a/one", "a/one", "a/two", "b/one", "b/two"]),
        select(&CLUSTER_IPS),
        subsequence(&PORTS[..], 1..4),
        subsequence(&EXTERNAL_IPS[..], 0..3),
        prop::collection::vec((select(&LOAD_BALANCER_IPS), prop::bool::weighted(0.2)), 0..3),
        prop_oneof![2 => Just(vec![]), 3 => subsequence(&RANGES[..], 1..4)],
    );
    let how = (
        prop_oneof![
            2 => Just(ServiceType::ClusterIp),
            3 => Just(ServiceType::NodePort),
            3 => Just(ServiceType::LoadBalancer),
            1 => Just(ServiceType::ExternalName),
        ],
        policy(),
        policy(),
        prop::option::of(0..3i64),
        prop::option::weighted(0.3, Just(AFFINITY)),
    );
    (what, how).prop_map(
        |(
            (name, ips, ports, external, balanced, ranges),
            (service_type, internal, outer, created, affinity),
        )| {
            let mut service = service(name, ips, &ports.join(" "))
                .with_external_ips(&external.join(" "))
                .with_source_ranges(&ranges.join(" "))
                .with_policies(internal, outer)
                .of_type(service_type);
            service.load_balancer_ingress = balanced.into_iter().map(ingress).collect();
            service.headless = ips.is_empty();
            service.created = created;
            service.session_affinity = affinity;
            service
        },
    )
}

fn ingress((ip, rewritten): (&str, bool)) -> LoadBalancerIngress {
    LoadBalancerIngress {
        ip: testing::ip(ip),
        ip_mode: if rewritten { IpMode::Proxy } else { IpMode::Vip },
    }
}

/// Which hints the endpoints of a slice have: they count only where all have some.
#[derive(Clone, Copy, Debug)]
enum Hinted {
    No,
    Zones,
    Nodes,
    Both,
    AsItComes,
}

pub(super) fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    // Often of one Service, so that endpoints and their hints meet.
    let place = (
        select(vec!["a", "a", "a", "b"]),
        0..4u8,
        select(vec!["one", "one", "two"]),
    );
    let hinted = prop_oneof![
        4 => Just(Hinted::No),
        2 => Just(Hinted::Zones),
        2 => Just(Hinted::Nodes),
        2 => Just(Hinted::Both),
        1 => Just(Hinted::AsItComes),
    ];
    let state = (
        conditions(),
        select(vec!["zone:a", "zone:b", "zone:a zone:b"]),
        any_node_hint(),
        0..4u8,
    );
    let states = prop::collection::vec(state, ENDPOINTS_V4.len());
    let chosen = prop_oneof![
        2 => subsequence(&ENDPOINTS_V4[..], 0..7).prop_map(|chosen| (Family::V4, chosen)),
        1 => subsequence(&ENDPOINTS_V6[..], 0..5).prop_map(|chosen| (Family::V6, chosen)),
    ];
    (place, select(&SLICE_PORTS), chosen, states, hinted).prop_map(
        |((namespace, number, owner), ports, (family, chosen), states, hinted)| {
            let endpoints = chosen
                .iter()
                .zip(states)
                .map(|(text, (conditions, zone, node, which))| {
                    let hints = match hinted {
                        Hinted::No => String::new(),
                        Hinted::Zones => zone.to_owned(),
                        Hinted::Nodes => node.to_owned(),
                        Hinted::Both => format!("{node} {zone}"),
                        Hinted::AsItComes => ["", zone, node, ""][usize::from(which)].to_owned(),
                    };
                    let [ready, serving, terminating] = conditions;
                    SliceEndpoint {
                        ready,
                        serving,
                        terminating,
                        ..endpoint(&format!("{text} {hints}"))
                    }
                });
            let mut slice = slice(&format!("{namespace}/slice-{number}"), owner, ports, &[]);
            slice.family = family;
            slice.endpoints = endpoints.collect();
            slice
        },
    )
}

fn any_node_hint() -> impl Strategy<Value = &'static str> {
    select(vec![
        "node:this-node",
        "node:other-node",
        "node:other-node node:this-node",
    ])
}

/// ready, serving, terminating.
fn conditions() -> impl Strategy<Value = [bool; 3]> {
    prop_oneof![
        5 => Just([true, true, false]),
        3 => Just([false, true, true]),
        2 => any::<[bool; 3]>(),
    ]
}
