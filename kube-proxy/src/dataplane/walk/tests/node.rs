//! A node that observes objects and plans them in one of the modes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::Mode;
use crate::dataplane::iptables::walk::Written;
use crate::dataplane::nftables::Nftables;
use crate::dataplane::nftables::walk::Table;
use crate::dataplane::walk::{Connection, Origin, Packet, Path, Rules, Surroundings, Transport, walk};
use crate::dataplane::{
    CommitError, CommitReport, Dataplane, LocalTraffic, NodePortAddresses, iptables, nftables,
};
use crate::model::change::Change;
use crate::model::cluster::{Cluster, TrafficConfig};
use crate::model::object::{
    EndpointSlice, Family, Node as NodeObject, ObjectName, Protocol, Service, ServiceCidr,
};
use crate::model::testing;

/// How this node is set up.
#[derive(Clone, Debug)]
pub(in crate::dataplane) struct Setup {
    pub(in crate::dataplane) mode: Mode,
    /// How pods are told from others, for IPv4 and IPv6.
    pub(in crate::dataplane) local_traffic: [LocalTraffic; 2],
    pub(in crate::dataplane) masquerade_all: bool,
    /// Of its Node's status.
    pub(in crate::dataplane) node_ips: Vec<IpAddr>,
    /// Of its interfaces.
    pub(in crate::dataplane) interface_addresses: Vec<IpAddr>,
    /// Which of them accept node ports.
    pub(in crate::dataplane) node_port_addresses: [NodePortAddresses; 2],
    /// What packets to node ports at the loopback address bear as their source; they are not served without. In
    /// iptables mode they keep the one that they have.
    pub(in crate::dataplane) localhost: [Option<IpAddr>; 2],
    /// In iptables mode: conntrack is strict, so what it calls invalid is dropped.
    pub(in crate::dataplane) drops_invalid: bool,
    pub(in crate::dataplane) service_cidrs: Vec<IpNet>,
    pub(in crate::dataplane) zone: Option<&'static str>,
}

impl Default for Setup {
    /// As in upstream's tests: pods in 10.0.0.0/8, ClusterIPs in 172.30.0.0/16, two addresses of each family, node
    /// ports at all of them.
    fn default() -> Self {
        let pods = |network: &str| LocalTraffic::Cidr(network.parse().unwrap());
        Self {
            mode: Mode::Nftables,
            local_traffic: [pods("10.0.0.0/8"), pods("fd00:10::/32")],
            masquerade_all: false,
            node_ips: ips("192.168.0.2 2001:db8::2"),
            interface_addresses: ips("192.168.0.2 192.168.1.2 2001:db8::2 2001:db8:1::2"),
            node_port_addresses: [NodePortAddresses::All, NodePortAddresses::All],
            localhost: ["192.168.0.2", "2001:db8::2"].map(|ip| Some(testing::ip(ip))),
            drops_invalid: true,
            service_cidrs: vec!["172.30.0.0/16".parse().unwrap()],
            zone: None,
        }
    }
}

/// Addresses with blanks between.
pub(in crate::dataplane) fn ips(list: &str) -> Vec<IpAddr> {
    list.split_whitespace().map(testing::ip).collect()
}

/// A node with what it observed and what it planned.
pub(in crate::dataplane) struct Node {
    pub(in crate::dataplane) cluster: Cluster,
    pub(in crate::dataplane) planned: Planned,
    pub(in crate::dataplane) surroundings: Surroundings,
}

/// What is planned in one of the modes.
pub(in crate::dataplane) enum Planned {
    Nftables(Box<Nftables>),
    Iptables(Box<Written>),
}

impl Planned {
    fn new(setup: &Setup) -> Self {
        let local_traffic = setup.local_traffic.clone();
        match setup.mode {
            Mode::Nftables => Self::Nftables(Box::new(Nftables::new(nftables::Config {
                local_traffic,
                localhost_node_ports: setup.localhost != [None, None],
                ..nftables::Config::default()
            }))),
            Mode::Iptables => Self::Iptables(Box::new(Written::new(iptables::Config {
                masquerade_mark: 1 << 14,
                local_traffic,
                localhost_node_ports: setup.localhost[Family::V4 as usize].is_some(),
                primary: Family::V4,
                families: Family::ALL.to_vec(),
                sync_period: Duration::from_secs(30),
                drops_invalid: setup.drops_invalid,
            }))),
            Mode::Ipvs => unreachable!("no rule says what IPVS does"),
        }
    }

    pub(in crate::dataplane) fn dataplane(&mut self) -> &mut dyn Dataplane {
        match self {
            Self::Nftables(dataplane) => &mut **dataplane,
            Self::Iptables(written) => &mut written.dataplane,
        }
    }

    /// Puts all that is planned in force, in the network namespace of this thread.
    pub(super) fn commit(&mut self) -> Result<CommitReport, CommitError> {
        if let Self::Iptables(written) = self {
            written.begin_anew();
        }
        let mut report = CommitReport::default();
        self.dataplane().commit(&mut report).map(|()| report)
    }

    /// What the kernel would hold of one family.
    pub(in crate::dataplane) fn rules(&self, family: Family) -> Box<dyn Rules + '_> {
        match self {
            Self::Nftables(dataplane) => Box::new(Table::planned(dataplane, family).unwrap()),
            Self::Iptables(written) => Box::new(written.tables(family)),
        }
    }
}

impl Node {
    fn new(setup: &Setup) -> Self {
        let mut cluster = Cluster::new(TrafficConfig {
            masquerade_all: setup.masquerade_all,
            detects_pods: [0, 1].map(|family| setup.local_traffic[family] != LocalTraffic::Unknown),
            node_ips: setup.node_ips.clone(),
            ..testing::config()
        });
        cluster.apply(in_zone(setup.zone));
        let mut node = Self {
            cluster,
            planned: Planned::new(setup),
            surroundings: Surroundings {
                node_addresses: setup.interface_addresses.clone(),
                ..Surroundings::default()
            },
        };
        node.choose_node_port_addresses(&setup.node_port_addresses);
        for (family, source) in Family::ALL.into_iter().zip(setup.localhost) {
            node.planned.dataplane().set_localhost_node_ports(family, source);
        }
        node.apply([in_service_cidrs(&setup.service_cidrs)]);
        node
    }

    pub(in crate::dataplane) fn choose_node_port_addresses(&mut self, chosen: &[NodePortAddresses; 2]) {
        for (family, addresses) in Family::ALL.into_iter().zip(chosen) {
            self.planned
                .dataplane()
                .set_node_port_addresses(family, addresses.clone());
        }
        self.write();
    }

    /// A node that observed these objects.
    pub(in crate::dataplane) fn with<'a>(
        setup: &Setup,
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let mut node = Self::new(setup);
        testing::observe(&mut node.cluster, services, slices);
        node.plan();
        node
    }

    pub(in crate::dataplane) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.cluster.apply(change);
        }
        self.plan();
    }

    /// Plans what was touched, as the proxy does.
    fn plan(&mut self) {
        for name in self.cluster.take_dirty() {
            let view = self.cluster.resolve(&name);
            self.planned.dataplane().update(&name, view.as_ref());
        }
        if let Some(networks) = self.cluster.take_service_cidrs() {
            for (family, networks) in Family::ALL.into_iter().zip(&networks) {
                self.planned.dataplane().set_service_cidrs(family, networks);
            }
        }
        self.write();
    }

    /// Writes what is planned, in the mode that writes.
    fn write(&mut self) {
        if let Planned::Iptables(written) = &mut self.planned {
            written.write().unwrap();
        }
    }

    /// What the kernel would hold of one family.
    pub(in crate::dataplane) fn rules(&self, family: Family) -> Box<dyn Rules + '_> {
        self.planned.rules(family)
    }

    /// Every way of a packet.
    pub(in crate::dataplane) fn walk(&self, packet: &Packet) -> Vec<Path> {
        walk(&*self.rules(packet.family()), packet, &self.surroundings).unwrap()
    }

    /// A packet that comes from this address: of this host if it is its own, else through the interface of a
    /// pod here (10.180.0.*), or from the network. To `PROTOCOL address:port`, or `ping address`.
    pub(in crate::dataplane) fn packet(&self, from: &str, to: &str) -> Packet {
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

    /// Where a packet goes, as [`text`](super::text) says it.
    pub(in crate::dataplane) fn answer(&self, from: &str, to: &str) -> String {
        super::text(&self.walk(&self.packet(from, to)))
    }
}

pub(in crate::dataplane) fn in_zone(zone: Option<&str>) -> Change {
    let zone = zone.map(Into::into);
    Change::Node(Box::new(NodeObject {
        zone,
        ..NodeObject::default()
    }))
}

pub(in crate::dataplane) fn in_service_cidrs(networks: &[IpNet]) -> Change {
    Change::ServiceCidr(Box::new(ServiceCidr {
        name: ObjectName::new("", "kubernetes"),
        cidrs: networks.to_vec(),
    }))
}
