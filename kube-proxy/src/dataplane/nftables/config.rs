//! What the dataplane is told at the start, and which addresses accept node ports.

use std::net::IpAddr;

use super::layout::Layout;
use super::plan::Node;
use super::rules::Rules;
use crate::dataplane::{LocalTraffic, NodePortAddresses};
use crate::model::object::Family;

/// How the nftables dataplane works on this node. Fixed for its life.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one bit of the packet mark by which packets to masquerade are known.
    pub masquerade_mark: u32,
    /// How pods are told from others, for IPv4 and IPv6.
    pub local_traffic: [LocalTraffic; 2],
    /// The families to program; nothing is done for the other one.
    pub families: Vec<Family>,
    /// Serve node ports at the loopback address as well, for processes of this host.
    pub localhost_node_ports: bool,
    /// Count the connections of each ServicePort.
    pub count_connections: bool,
    /// IPVS picks the endpoints wherever all sources share a list; the tables do what else there is to do.
    pub beside_ipvs: bool,
    /// Name of the tables; another one than `kube-proxy` only where something else owns that.
    pub table: String,
}

impl Default for Config {
    /// Bit 14, pods unknown, both families, node ports at the loopback address, table `kube-proxy`.
    fn default() -> Self {
        Self {
            masquerade_mark: 1 << 14,
            local_traffic: [LocalTraffic::Unknown, LocalTraffic::Unknown],
            families: Family::ALL.to_vec(),
            localhost_node_ports: true,
            count_connections: false,
            beside_ipvs: false,
            table: "kube-proxy".to_owned(),
        }
    }
}

impl Config {
    pub(super) fn rules(&self, family: Family) -> Rules<'_> {
        Rules {
            layout: Layout::of(family),
            local_traffic: &self.local_traffic[family as usize],
            masquerade_mark: self.masquerade_mark,
            localhost_node_ports: self.localhost_node_ports,
            beside_ipvs: self.beside_ipvs,
        }
    }

    /// What the plan has to know about the node.
    pub(super) fn node(&self) -> Node {
        Node {
            knows_pods: Family::ALL.map(|family| self.rules(family).knows_pods()),
            localhost: self.localhost_node_ports,
            beside_ipvs: self.beside_ipvs,
        }
    }
}

/// Which addresses accept node ports, by family, and what the rules say of it.
#[derive(Debug)]
pub(super) struct NodePorts {
    wanted: [NodePortRules; 2],
    written: [NodePortRules; 2],
}

/// What of it is in rules rather than in sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodePortRules {
    /// Every local address accepts node ports.
    pub(super) on_all: bool,
    /// The address of the node that packets to the loopback address are given as their source.
    pub(super) localhost: Option<IpAddr>,
}

impl Default for NodePorts {
    /// All of them, but not the loopback address.
    fn default() -> Self {
        let all = NodePortRules {
            on_all: true,
            localhost: None,
        };
        Self {
            wanted: [all; 2],
            written: [all; 2],
        }
    }
}

impl NodePorts {
    /// Sets the addresses of a family.
    pub(super) fn set(&mut self, family: Family, addresses: &NodePortAddresses) {
        self.wanted[family as usize].on_all = *addresses == NodePortAddresses::All;
    }

    /// Sets the source address of packets to the loopback address.
    pub(super) fn set_localhost(&mut self, family: Family, source: Option<IpAddr>) {
        self.wanted[family as usize].localhost = source;
    }

    /// What the rules of a family are to say.
    pub(super) fn rules(&self, family: Family) -> NodePortRules {
        self.wanted[family as usize]
    }

    /// The families whose rules do not follow yet.
    pub(super) fn rules_changed(&self) -> impl Iterator<Item = Family> {
        let Self { wanted, written } = self;
        let changed = [0, 1].map(|family| wanted[family] != written[family]);
        Family::ALL
            .into_iter()
            .filter(move |family| changed[*family as usize])
    }

    /// The rules follow.
    pub(super) fn rules_written(&mut self) {
        self.written = self.wanted;
    }
}
