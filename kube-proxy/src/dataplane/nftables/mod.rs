//! The nftables dataplane: a fixed number of sets and maps, whatever the number of Services.
//!
//! Two tables, `ip kube-proxy` and `ip6 kube-proxy`, written over netlink, no `nft` involved. The way of the
//! first packet of a connection (conntrack treats the others like it):
//!
//! ```text
//! pre-dnat (-110)  firewall-check: to restricted-ips, and not from source-ranges: dropped
//! nat (-100)       services ─▶ service-ips { address . protocol . port : verdict }
//!                  nodeports ─▶ service-nodeports { protocol . port : verdict }
//!                     verdict: goto endpoints-3, endpoints-3-masquerade-host-outside, …, made as needed:
//!                       mark to be masqueraded, then
//!                       dnat to service-endpoints { address . protocol . port . slot : address . port }
//!                       with a random slot below 3; no such slot: drop (see below)
//!                     or, where clients stay with their endpoint: goto endpoints-3-affinity-10800s…:
//!                       a random number from affinity-slots { … . slot : number }; kept in, or replaced by
//!                       the one in, affinity { group . client : number }, where the group is the upper half
//!                       of the number and says which ServicePort it is of;
//!                       dnat to affinity-endpoints { address . protocol . port . number : address . port }
//!                     verdict: goto by-source/…: tells pods, this host and others apart, then as above
//! filter (0)       no-endpoint-{services,nodeports} { … : goto reject-chain, or drop }
//!                  other packets to cluster-ips: rejected; to other addresses in service-cidrs: dropped
//! nat (100)        masquerading: what was marked, and a pod that reaches itself (hairpin-connections)
//! ```
//!
//! What a process of the host sends to 127.0.0.1:nodePort takes a way of its own, told in `localhost.rs`.
//!
//! - All Services with three endpoints share the chain `endpoints-3`. Slots of a Service have no gaps; a
//!   changed endpoint is one element. From slot 1000000 on the same map holds the endpoints of this node.
//! - A commit is one transaction. Packets under way may see a verdict from before it and an endpoint from
//!   after, so an endpoint's element goes a second later than the verdict that led to it, and a chain later
//!   than the last verdict; a packet that is slower still is dropped, and its sender tries again.
//! - The first commit writes in transactions so small that others get to work meanwhile; the base chains come last.
//!   Where there are tables of this name already, they are replaced without any packet noticing (`takeover.rs`). What
//!   they remember of clients is read just before and goes into the new ones.
//! - What the kernel refuses is left out, with all that belongs to the same address and port (a change: the
//!   state before it stays), reported, and tried again with growing pauses or when the Service changes.
//! - What another hand changes in these tables is heard from the kernel, and all is programmed anew (`others.rs`).
//!
//! Limits: no accept rules, since none could overrule another table's drop. No SCTP to node ports at the loopback
//! address. What a client did in the moment between the reading of a predecessor's memory and the commit is
//! forgotten. nft 1.0.6 leaves the statement that remembers a client out of its JSON (with a warning).

mod affinity;
mod apply;
mod chain;
mod config;
mod connections;
mod constant;
mod element;
mod encode;
mod entry;
mod expr;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod iptables;
mod kernel;
mod layout;
mod lingering;
mod listed;
mod listing;
mod localhost;
mod memory;
mod needed;
mod object;
mod others;
mod pending;
mod plan;
mod retire;
mod rules;
mod seats;
mod socket;
mod supported;
mod takeover;
#[cfg(test)]
mod tests;
mod text;
mod transaction;
#[cfg(test)]
pub(in crate::dataplane) mod walk;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::affinity::Groups;
pub use self::config::Config;
use self::config::NodePorts;
use self::connections::Connections;
use self::entry::{Action, Key, Target, Value};
pub(super) use self::entry::{Backend, Destination, Frontend};
pub(super) use self::iptables::{Chains, has_chains, remove_chains};
use self::kernel::Kernel;
pub(super) use self::lingering::refuse_at;
pub(super) use self::memory::node_ports;
pub(super) use self::others::Others;
use self::pending::{Held, Pending};
pub(super) use self::takeover::remove_tables;
use super::listing::{Difference, Listing};
use super::{CommitError, CommitReport, Dataplane, NodePortAddresses, ReadConnections};
use crate::model::ledger::Ledger;
use crate::model::object::{Family, ObjectName, Protocol};
use crate::model::view::ServiceView;

/// The dataplane. Opens its netlink socket at the first commit, in the network namespace of that thread.
#[derive(Debug)]
pub struct Nftables {
    config: Config,
    node_ports: NodePorts,
    groups: Groups,
    ledger: Ledger<Key, Value>,
    /// Whether the kernel follows the ledger, apart from what is pending.
    in_force: bool,
    /// What is in force is the stand-in, so far (`takeover.rs`).
    stands_in: bool,
    pending: Pending,
    kernel: Kernel,
    /// Where they are counted.
    connections: Option<Connections>,
    others: Others,
}

impl Nftables {
    /// A dataplane without Services. Touches nothing.
    pub fn new(config: Config) -> Self {
        let connections = || Connections::new(&config.table, &config.families);
        Self {
            connections: config.count_connections.then(connections),
            config,
            node_ports: NodePorts::default(),
            groups: Groups::default(),
            ledger: Ledger::new(),
            in_force: false,
            stands_in: false,
            pending: Pending::default(),
            kernel: Kernel::default(),
            others: Others::default(),
        }
    }

    /// Refuses what no Service takes at an address that is this node's for the Services' sake alone.
    pub(super) fn guard(&mut self, ip: IpAddr) {
        self.at_address(ip, vec![(Key::ClusterIp(ip), Value::Present)]);
    }

    /// Drops new connections to ports of an address that no Service has any more.
    pub(super) fn drop_new(&mut self, ip: IpAddr, ports: Vec<(Protocol, u16)>) {
        let dropped = ports.into_iter().map(|(protocol, port)| {
            let frontend = Frontend {
                address: Destination::Ip(ip),
                protocol,
                port,
            };
            (
                Key::NoEndpoint(frontend),
                Value::Verdict(Arc::new(Action {
                    target: Target::Drop,
                    comment: "connections go on".into(),
                })),
            )
        });
        let dropped = dropped.collect();
        self.at_address(ip, dropped);
    }

    /// Forgets both of an address.
    pub(super) fn leave_alone(&mut self, ip: IpAddr) {
        self.at_address(ip, Vec::new());
    }

    fn at_address(&mut self, ip: IpAddr, entries: Vec<(Key, Value)>) {
        let owner = ObjectName::new("", format!("address {ip}"));
        self.replace(&owner, None, entries);
    }

    /// Whether the rules in force take packets to this address and port for a Service's.
    pub(super) fn knows(&self, ip: IpAddr, protocol: Protocol, port: u16) -> bool {
        let has = |key: Key| match self.pending.held(&key) {
            Some(held) => *held != Held::Absent,
            None => self.ledger.get(&key).is_some(),
        };
        let serves = |address| {
            let frontend = Frontend {
                address,
                protocol,
                port,
            };
            has(Key::Service(frontend)) || has(Key::NoEndpoint(frontend))
        };
        let as_node_port = || has(Key::NodePortIp(ip)) && serves(Destination::Node(Family::of(ip)));
        self.in_force && (serves(Destination::Ip(ip)) || as_node_port())
    }

    fn replace(&mut self, owner: &ObjectName, created: Option<i64>, mut entries: Vec<(Key, Value)>) {
        entries.retain(|(key, _)| self.config.families.contains(&key.family()));
        let diff = self.ledger.replace(owner, created, entries);
        if self.in_force {
            self.pending.note(owner, diff);
        }
    }
}

impl Dataplane for Nftables {
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        if let Some(connections) = &self.connections {
            connections.update(service, view);
        }
        let groups = self.groups.of(service, view);
        let entries = view.map_or_else(Vec::new, |view| {
            let wanted = self.ledger.wanted_by(service);
            let seated = seats::seated(wanted.map(|entry| (entry.key, entry.value)));
            plan::plan(view, self.config.node(), &seated, groups)
        });
        self.replace(service, view.and_then(|view| view.created), entries);
    }

    fn set_node_port_addresses(&mut self, family: Family, addresses: NodePortAddresses) {
        if !self.config.families.contains(&family) {
            return;
        }
        let owner = ObjectName::new("", format!("nodePortAddresses of {family}"));
        let entries = match &addresses {
            NodePortAddresses::All => Vec::new(),
            NodePortAddresses::Only(addresses) => plan::node_port_ips(addresses),
        };
        self.node_ports.set(family, &addresses);
        self.replace(&owner, None, entries);
    }

    fn set_localhost_node_ports(&mut self, family: Family, source: Option<IpAddr>) {
        if self.config.localhost_node_ports && self.config.families.contains(&family) {
            self.node_ports.set_localhost(family, source);
        }
    }

    fn set_service_cidrs(&mut self, family: Family, cidrs: &[IpNet]) {
        let owner = ObjectName::new("", format!("ServiceCIDRs of {family}"));
        self.replace(&owner, None, plan::service_cidrs(cidrs));
    }

    fn commit(&mut self, report: &mut CommitReport) -> Result<(), CommitError> {
        let full = !self.in_force || self.stands_in;
        let committed = self.commit_at(Instant::now()).map(|done| *report = done);
        report.carried(&self.config.families, full, committed.is_err());
        committed
    }

    fn planned(&self) -> Listing {
        self.listing()
    }

    fn differences(&mut self) -> Result<Vec<Difference>, CommitError> {
        self.compared()
    }

    fn connections(&self) -> Option<ReadConnections> {
        self.connections.as_ref().map(Connections::reader)
    }

    fn listener(&mut self) -> Option<OwnedFd> {
        self.others.descriptor()
    }

    fn hear(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.others.hear(&self.config, now);
        Some(self.others.repair_due()?.saturating_duration_since(now))
    }
}
