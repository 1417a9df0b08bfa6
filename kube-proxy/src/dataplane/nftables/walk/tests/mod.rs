//! Where packets go, from objects to the answer: Service and EndpointSlice objects, resolved, planned, walked.

mod catalogue;
mod packets;
mod parts;
mod plain;
mod random;
mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::*;
use crate::dataplane::nftables::{Config, Nftables};
use crate::dataplane::{Dataplane, LocalTraffic, NodePortAddresses};
use crate::model::change::Change;
use crate::model::cluster::{Cluster, TrafficConfig};
use crate::model::object::{
    EndpointSlice, Family, Node as NodeObject, ObjectName, Protocol, Service, ServiceCidr,
};
use crate::model::testing;

/// How this node is set up.
#[derive(Clone, Debug)]
struct Setup {
    /// How pods are told from others, for IPv4 and IPv6.
    local_traffic: [LocalTraffic; 2],
    masquerade_all: bool,
    /// Of its Node's status.
    node_ips: Vec<IpAddr>,
    /// Of its interfaces.
    interface_addresses: Vec<IpAddr>,
    /// Which of them accept node ports.
    node_port_addresses: [NodePortAddresses; 2],
    /// What packets to node ports at the loopback address bear as their source; they are not served without.
    localhost: [Option<IpAddr>; 2],
    service_cidrs: Vec<IpNet>,
    zone: Option<&'static str>,
}

impl Default for Setup {
    /// As in upstream's tests: pods in 10.0.0.0/8, ClusterIPs in 172.30.0.0/16, two addresses of each family, node
    /// ports at all of them.
    fn default() -> Self {
        let pods = |network: &str| LocalTraffic::Cidr(network.parse().unwrap());
        Self {
            local_traffic: [pods("10.0.0.0/8"), pods("fd00:10::/32")],
            masquerade_all: false,
            node_ips: ips("192.168.0.2 2001:db8::2"),
            interface_addresses: ips("192.168.0.2 192.168.1.2 2001:db8::2 2001:db8:1::2"),
            node_port_addresses: [NodePortAddresses::All, NodePortAddresses::All],
            localhost: ["192.168.0.2", "2001:db8::2"].map(|ip| Some(testing::ip(ip))),
            service_cidrs: vec!["172.30.0.0/16".parse().unwrap()],
            zone: None,
        }
    }
}

fn ips(list: &str) -> Vec<IpAddr> {
    list.split_whitespace().map(testing::ip).collect()
}

/// A node with what it observed and what it planned.
struct Node {
    cluster: Cluster,
    dataplane: Nftables,
    surroundings: Surroundings,
}

impl Node {
    fn new(setup: &Setup) -> Self {
        let dataplane = Nftables::new(Config {
            local_traffic: setup.local_traffic.clone(),
            localhost_node_ports: setup.localhost != [None, None],
            ..Config::default()
        });
        let mut cluster = Cluster::new(TrafficConfig {
            masquerade_all: setup.masquerade_all,
            detects_pods: [0, 1].map(|family| setup.local_traffic[family] != LocalTraffic::Unknown),
            node_ips: setup.node_ips.clone(),
            ..testing::config()
        });
        cluster.apply(in_zone(setup.zone));
        let mut node = Self {
            cluster,
            dataplane,
            surroundings: Surroundings {
                node_addresses: setup.interface_addresses.clone(),
                ..Surroundings::default()
            },
        };
        node.choose_node_port_addresses(&setup.node_port_addresses);
        for (family, source) in Family::ALL.into_iter().zip(setup.localhost) {
            node.dataplane.set_localhost_node_ports(family, source);
        }
        node.apply([in_service_cidrs(&setup.service_cidrs)]);
        node
    }

    fn choose_node_port_addresses(&mut self, chosen: &[NodePortAddresses; 2]) {
        for (family, addresses) in Family::ALL.into_iter().zip(chosen) {
            self.dataplane.set_node_port_addresses(family, addresses.clone());
        }
    }

    /// A node that observed these objects.
    fn with<'a>(
        setup: &Setup,
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let mut node = Self::new(setup);
        testing::observe(&mut node.cluster, services, slices);
        node.plan();
        node
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.cluster.apply(change);
        }
        self.plan();
    }

    /// Plans what was touched, as the proxy does.
    fn plan(&mut self) {
        for name in self.cluster.take_dirty() {
            let view = self.cluster.resolve(&name);
            self.dataplane.update(&name, view.as_ref());
        }
        if let Some(networks) = self.cluster.take_service_cidrs() {
            for (family, networks) in Family::ALL.into_iter().zip(&networks) {
                self.dataplane.set_service_cidrs(family, networks);
            }
        }
    }

    fn table(&self, family: Family) -> Table {
        Table::planned(&self.dataplane, family).unwrap()
    }

    /// Every way of a packet.
    fn walk(&self, packet: &Packet) -> Vec<Path> {
        let table = self.table(packet.family());
        table.walk(packet, &self.surroundings).unwrap()
    }

    /// A packet that comes from this address: of this host if it is its own, else through the interface of a
    /// pod here (10.180.0.*), or from the network. To `PROTOCOL address:port`, or `ping address`.
    fn packet(&self, from: &str, to: &str) -> Packet {
        let source = testing::ip(from);
        let (kind, to) = to.split_once(' ').unwrap();
        let (destination, transport) = match kind {
            "ping" => (testing::ip(to), Transport::Ping { checksum: 80 }),
            kind => {
                let to: SocketAddr = to.parse().unwrap();
                let mut protocols = Protocol::ALL.into_iter();
                let protocol = protocols.find(|protocol| protocol.to_string() == kind).unwrap();
                (to.ip(), Transport::To(protocol, to.port()))
            }
        };
        Packet {
            source,
            destination,
            transport,
            origin: match self.surroundings.is_local(source) {
                true => Origin::Host,
                false if from.starts_with("10.180.0.") => Origin::Interface("veth1".to_owned()),
                false => Origin::Interface("eth0".to_owned()),
            },
            connection: Connection::New,
            mark: 0,
        }
    }

    /// Where a packet goes, as [`text`] says it.
    fn answer(&self, from: &str, to: &str) -> String {
        text(&self.walk(&self.packet(from, to)))
    }
}

fn in_zone(zone: Option<&str>) -> Change {
    let zone = zone.map(Into::into);
    Change::Node(Box::new(NodeObject {
        zone,
        ..NodeObject::default()
    }))
}

fn in_service_cidrs(networks: &[IpNet]) -> Change {
    Change::ServiceCidr(Box::new(ServiceCidr {
        name: ObjectName::new("", "kubernetes"),
        cidrs: networks.to_vec(),
    }))
}

/// All outcomes, in order; those that differ in the endpoint only share their last words:
/// `10.0.0.1:80 10.0.0.2:80 masqueraded`.
fn text(paths: &[Path]) -> String {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for outcome in shares(paths).into_keys() {
        match outcome {
            Outcome::To {
                endpoint,
                masqueraded,
            } => {
                let words = if masqueraded { " masqueraded" } else { "" };
                let endpoints = kinds.entry(words.to_owned()).or_default();
                endpoints.push(endpoint.to_string());
            }
            other => kinds.entry(other.to_string()).or_default().push(String::new()),
        }
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(words, endpoints)| endpoints.join(" ") + &words)
        .collect();
    kinds.join("; ")
}

/// How much of the traffic has which outcome.
fn shares(paths: &[Path]) -> BTreeMap<Outcome, f64> {
    let mut shares = BTreeMap::new();
    for path in paths {
        *shares.entry(path.outcome).or_default() += path.share;
    }
    shares
}

/// Every way with the rules that had a say.
fn trails(paths: &[Path]) -> String {
    let line = |path: &Path| {
        let steps: String = path.trail.iter().map(|step| format!("\n    {step}")).collect();
        format!("  {:.3} {}{steps}\n", path.share, path.outcome)
    };
    paths.iter().map(line).collect()
}
