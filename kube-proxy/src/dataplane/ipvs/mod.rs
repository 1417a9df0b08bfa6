//! The IPVS dataplane: virtual servers of the kernel's IPVS choose endpoints, nftables rules do the rest.
//!
//! ```text
//! pre-dnat (-110)  firewall-check: to a load balancer's address, and not from its source ranges: dropped
//! nat (-100)       services ─▶ service-ips, service-nodeports:
//!                     goto ipvs-masquerade-…: mark to be masqueraded, and leave the packet to IPVS
//!                     goto by-source/…: pods and this host that may go to other endpoints than those outside
//!                       are sent there by the maps of the nftables mode; the rest is left to IPVS
//! routing          the address is one of kube-ipvs0 (or of this node): the packet is for this host
//! input (0), output (-99)    no endpoints: rejected or dropped
//! input (99), output (-98)   IPVS: the virtual server of address, protocol and port picks an endpoint and sends on
//! input (110)      what IPVS did not take, to an address that is only here for IPVS: rejected
//! nat (100)        masquerading: what was marked, and a pod that reaches itself
//! ```
//!
//! - The rules are the nftables mode's, in its tables, with a fixed number of sets; see there. So a node that changes
//!   between the two modes replaces the tables in one transaction.
//! - A virtual server has one list of endpoints, whoever asks. Where pods or this host are entitled to others than
//!   clients outside (`externalTrafficPolicy: Local`), IPVS has the list of those outside, and the others are
//!   rewritten before IPVS sees them. A second virtual server, told apart by a firewall mark, would need a number in
//!   the packet's mark for every ServicePort, and would leave node ports without their address.
//! - The addresses of kube-ipvs0 are nobody's source unless they are the destination, too: see `device.rs`.
//! - What this host sends to an address of kube-ipvs0 has that address as its source as well, and is always
//!   masqueraded.
//! - What comes comes in this order: virtual servers with their endpoints, rules, addresses, and at the node's own addresses
//!   virtual servers after the rules; so IPVS sees no packet that a rule should have masqueraded. What goes goes the other
//!   way round. Only where a predecessor serves by rules alone, the addresses come before these are replaced.
//! - An endpoint of TCP or SCTP that is to go gets no new connections (weight 0) and is deleted when it has none left;
//!   so does a virtual server. UDP endpoints go as soon as they had time for answers under way, unless they still serve:
//!   then their flows may stay.
//! - Virtual servers that nobody wants are removed at the start, except for those in `excludeCIDRs` and those that go
//!   by a firewall mark. Addresses that another interface of the node has are neither added nor removed.
//! - What the kernel holds otherwise than expected is looked for every second, or less often where that takes long; what
//!   is found is put right (`look.rs`, `others.rs`). Where it is noticed by a change that fails, all of it is read anew.
//!
//! Limits: session affinity is IPVS' persistence, so it holds for one address of a ServicePort. The schedulers have no
//! say where sources are told apart. Node ports are not served at the loopback address. The kernel's IPVS tells
//! answers by endpoint and client alone, and not by conntrack's entry: while it remembers that a client asked an endpoint by
//! one address, a connection from the same port of the client to the same endpoint by another address fails. The client may
//! also be a node that asked through a node port here, and the port one that it chose for a connection which it masquerades.
//! And a process of the host that asks while its Service comes has the node's address as its source until the Service's is
//! there, so affinity may then begin anew.

mod apply;
mod cleanup;
mod config;
mod desired;
mod device;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod kernel;
mod leaving;
mod listing;
mod look;
mod message;
mod others;
mod plan;
mod route;
mod steps;
mod sysctl;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::apply::Thing;
pub(super) use self::cleanup::{keep_connections, remove_device, remove_servers, retire_device};
pub use self::config::Config;
use self::desired::{Desired, Moved};
pub(crate) use self::device::index;

use self::entry::{At, Scheduler};
use self::kernel::Kernel;
use self::leaving::Leaving;
use self::others::Others;
pub(super) use self::sysctl::let_connections_live;
pub use self::sysctl::prepare;
use super::listing::{Difference, Listing};
use super::nftables::{self, Nftables};
use super::retry::Retry;
use super::{CommitError, CommitReport, Dataplane, NodePortAddresses};
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;

/// The dataplane. Opens its netlink sockets at the first commit, in the network namespace of that thread.
#[derive(Debug)]
pub struct Ipvs {
    config: Config,
    scheduler: Scheduler,
    rules: Nftables,
    desired: Desired,
    /// What may differ from what is desired.
    moved: Moved,
    /// Opened at the first commit, and anew after one that failed.
    kernel: Option<Kernel>,
    /// What the kernel refused by itself, and when to try again.
    refused: BTreeMap<Thing, Retry>,
    /// Schedulers that the kernel lacks.
    lacking: Vec<Scheduler>,
    /// Virtual servers with endpoints that stay until they have finished what they began.
    leaving: BTreeMap<At, Leaving>,
    /// When to look at those.
    look_at: Option<Instant>,
    /// What others change.
    others: Others,
}

impl Ipvs {
    /// A dataplane without Services. Touches nothing.
    pub fn new(config: Config) -> Self {
        let rules = Nftables::new(nftables::Config {
            masquerade_mark: config.masquerade_mark,
            local_traffic: config.local_traffic.clone(),
            families: config.families.clone(),
            localhost_node_ports: false,
            beside_ipvs: true,
            ..nftables::Config::default()
        });
        let mut ipvs = Self {
            scheduler: Scheduler::named(config.scheduler.as_str()),
            config,
            rules,
            desired: Desired::default(),
            moved: Moved::default(),
            kernel: None,
            refused: BTreeMap::new(),
            lacking: Vec::new(),
            leaving: BTreeMap::new(),
            look_at: None,
            others: Others::default(),
        };
        for family in Family::ALL {
            ipvs.node_ports_moved(family);
        }
        ipvs
    }

    fn note(&mut self, moved: Moved) {
        // Those that go are guarded as long as they are there.
        for ip in &moved.addresses {
            if self.desired.has_address(*ip) {
                self.rules.guard(*ip);
            }
        }
        self.moved.servers.extend(moved.servers);
        self.moved.addresses.extend(moved.addresses);
        for family in moved.node_ports {
            self.node_ports_moved(family);
        }
    }

    /// The rules always name the addresses: those of kube-ipvs0 are local as well, and must not accept node ports.
    fn node_ports_moved(&mut self, family: Family) {
        let addresses = self.desired.node_ports(family).to_vec();
        self.rules
            .set_node_port_addresses(family, NodePortAddresses::Only(addresses));
    }
}

impl Dataplane for Ipvs {
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        self.rules.update(service, view);
        let mut entries = view.map_or_else(Vec::new, |view| plan::plan(view, &self.scheduler));
        entries.retain(|(key, _)| self.config.families.contains(&key.family()));
        let created = view.and_then(|view| view.created);
        let diff = self.desired.ledger.replace(service, created, entries);
        let keys = diff.added.into_iter().chain(diff.removed).map(|(key, _)| key);
        let keys = keys.chain(diff.changed.into_iter().map(|changed| changed.key));
        let mut moved = Moved::default();
        for key in keys {
            self.desired.spread(&key, &mut moved);
        }
        self.note(moved);
    }

    fn set_node_port_addresses(&mut self, family: Family, addresses: NodePortAddresses) {
        let moved = self.desired.set_accepting(family, addresses);
        self.note(moved);
    }

    fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> bool {
        let moved = self.desired.set_local(addresses);
        let differs = moved != Moved::default();
        self.note(moved);
        differs
    }

    /// As upstream, not in this mode.
    fn set_localhost_node_ports(&mut self, _: Family, _: Option<IpAddr>) {}

    fn set_service_cidrs(&mut self, family: Family, cidrs: &[IpNet]) {
        self.rules.set_service_cidrs(family, cidrs);
        self.desired.set_service_cidrs(family, cidrs);
        self.moved.addresses.extend(self.leaving.keys().map(|at| at.ip));
    }

    fn commit(&mut self, report: &mut CommitReport) -> Result<(), CommitError> {
        let full = self.kernel.is_none();
        let committed = self.commit_at(Instant::now()).map(|done| *report = done);
        report.carried(&self.config.families, full, committed.is_err());
        committed
    }

    fn planned(&self) -> Listing {
        let mut listing = self.rules.planned();
        self.list_servers(&mut listing);
        listing
    }

    fn differences(&mut self) -> Result<Vec<Difference>, CommitError> {
        self.compared()
    }

    fn listener(&mut self) -> Option<OwnedFd> {
        self.rules.listener().or_else(|| self.others.descriptor())
    }

    fn look_due(&self) -> Option<Instant> {
        self.look_for_others_due()
    }

    fn hear(&mut self) -> Option<Duration> {
        let found = self.hear_others(Instant::now()).then_some(Duration::ZERO);
        self.rules.hear().into_iter().chain(found).min()
    }
}
