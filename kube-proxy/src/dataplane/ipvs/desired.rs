//! What the kernel should hold: the ledger, spread over the addresses of this node. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::entry::{At, Key, Server, Value};
use ipnet::IpNet;

use crate::dataplane::NodePortAddresses;
use crate::dataplane::nftables::{Destination, Frontend};
use crate::model::ledger::Ledger;
use crate::model::object::{Family, ObjectName};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Desired {
    pub(super) ledger: Ledger<Key, Value>,
    /// Which addresses accept node ports, as configured, for IPv4 and IPv6.
    accepting: [NodePortAddresses; 2],
    /// The addresses of this node's own interfaces.
    local: BTreeSet<IpAddr>,
    /// The addresses that accept node ports, sorted, for IPv4 and IPv6.
    node_ports: [Vec<IpAddr>; 2],
    /// Where ClusterIPs come from, for IPv4 and IPv6.
    service_cidrs: [Vec<IpNet>; 2],
}

/// What changed in what the kernel should hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) servers: BTreeSet<At>,
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Families whose node ports are accepted at other addresses.
    pub(super) node_ports: Vec<Family>,
}

impl Default for Desired {
    fn default() -> Self {
        Self {
            ledger: Ledger::new(),
            accepting: [NodePortAddresses::All, NodePortAddresses::All],
            local: BTreeSet::new(),
            node_ports: [Vec::new(), Vec::new()],
            service_cidrs: [Vec::new(), Vec::new()],
        }
    }
}

impl Desired {
    /// The virtual server that should be there, and whose it is. An address of a Service goes before a node port.
    pub(super) fn server(&self, at: At) -> Option<(&Server, &ObjectName)> {
        let held = self.ledger.get(&Key::Server(at.frontend())).or_else(|| {
            let accepted = self.node_ports(Family::of(at.ip)).contains(&at.ip);
            accepted.then(|| self.ledger.get(&Key::Server(at.node_port())))?
        })?;
        match held.value {
            Value::Server(server) => Some((server, held.holder)),
            Value::Present => None,
        }
    }

    /// The address should be on the dummy device: a Service has it, and no other interface.
    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        !self.local.contains(&ip) && self.ledger.get(&Key::Address(ip)).is_some()
    }

    /// Another interface of this node has the address.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        self.local.contains(&ip)
    }

    /// ClusterIPs come from a network with this address.
    pub(super) fn comes_from_service_cidr(&self, ip: IpAddr) -> bool {
        let cidrs = &self.service_cidrs[Family::of(ip) as usize];
        cidrs.iter().any(|cidr| cidr.contains(&ip))
    }

    /// Sets where ClusterIPs come from.
    pub(super) fn set_service_cidrs(&mut self, family: Family, cidrs: &[IpNet]) {
        self.service_cidrs[family as usize] = cidrs.to_vec();
    }

    /// The addresses that accept node ports.
    pub(super) fn node_ports(&self, family: Family) -> &[IpAddr] {
        &self.node_ports[family as usize]
    }

    /// Everything that there should be.
    pub(super) fn all(&self) -> Moved {
        let mut all = Moved::default();
        for entry in self.ledger.iter() {
            self.spread(entry.key, &mut all);
        }
        all
    }

    /// What a key of the ledger stands for.
    pub(super) fn spread(&self, key: &Key, moved: &mut Moved) {
        match key {
            Key::Address(ip) => _ = moved.addresses.insert(*ip),
            Key::Server(frontend) => match frontend.address {
                Destination::Ip(ip) => _ = moved.servers.insert(at(ip, frontend)),
                Destination::Node(family) => {
                    let ips = self.node_ports(family).iter();
                    moved.servers.extend(ips.map(|ip| at(*ip, frontend)));
                }
            },
        }
    }

    /// Sets the addresses of this node's own interfaces.
    pub(super) fn set_local(&mut self, local: &[IpAddr]) -> Moved {
        let local = local.iter().copied().collect();
        let before = std::mem::replace(&mut self.local, local);
        let differing = before.symmetric_difference(&self.local).copied();
        let mut moved = Moved {
            addresses: differing.collect(),
            ..Moved::default()
        };
        moved
            .addresses
            .retain(|ip| self.ledger.get(&Key::Address(*ip)).is_some());
        for family in Family::ALL {
            self.accept(family, &mut moved);
        }
        moved
    }

    /// Sets which addresses accept node ports.
    pub(super) fn set_accepting(&mut self, family: Family, accepting: NodePortAddresses) -> Moved {
        self.accepting[family as usize] = accepting;
        let mut moved = Moved::default();
        self.accept(family, &mut moved);
        moved
    }

    /// Spreads node ports over the addresses that accept them now.
    fn accept(&mut self, family: Family, moved: &mut Moved) {
        let mut now: Vec<IpAddr> = match &self.accepting[family as usize] {
            NodePortAddresses::Only(addresses) => addresses.clone(),
            NodePortAddresses::All => {
                let local = self.local.iter().copied();
                local
                    .filter(|ip| Family::of(*ip) == family && serves_node_ports(*ip))
                    .collect()
            }
        };
        now.sort_unstable();
        now.dedup();
        let before = std::mem::replace(&mut self.node_ports[family as usize], now);
        let now = &self.node_ports[family as usize];
        if before == *now {
            return;
        }
        moved.node_ports.push(family);
        let differing = |ip: &&IpAddr| before.contains(ip) != now.contains(ip);
        let differing: Vec<IpAddr> = before.iter().chain(now).filter(differing).copied().collect();
        for entry in self.ledger.iter() {
            if let Key::Server(frontend) = entry.key
                && frontend.address == Destination::Node(family)
            {
                moved.servers.extend(differing.iter().map(|ip| at(*ip, frontend)));
            }
        }
    }
}

/// As upstream: of all addresses, neither those of the loopback interface nor those that hold on one link only.
fn serves_node_ports(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => ip != Ipv6Addr::LOCALHOST && !ip.is_unicast_link_local(),
    }
}

fn at(ip: IpAddr, frontend: &Frontend) -> At {
    At {
        ip,
        protocol: frontend.protocol,
        port: frontend.port,
    }
}
