//! The iptables dataplane: upstream's chains, names and comments, through `iptables-restore --noflush`.
//!
//! ```text
//! filter  INPUT, FORWARD, OUTPUT ─▶ KUBE-PROXY-FIREWALL    what no source range let through: dropped
//!         INPUT ─▶ KUBE-NODEPORTS                          health-check ports: accepted
//!         INPUT, FORWARD ─▶ KUBE-EXTERNAL-SERVICES         external addresses and node ports without an endpoint
//!         FORWARD, OUTPUT ─▶ KUBE-SERVICES                 ClusterIPs without an endpoint: rejected or dropped
//!         FORWARD ─▶ KUBE-FORWARD                          invalid packets dropped, marked and known ones accepted
//! nat     PREROUTING, OUTPUT ─▶ KUBE-SERVICES ─▶ KUBE-SVC-…  ClusterIP: marked unless from a pod, then one of
//!                                             ─▶ KUBE-EXT-…  external address: marked, or told apart by source
//!                                             ─▶ KUBE-FW-…   the same behind source ranges
//!                                             ─▶ KUBE-NODEPORTS ─▶ KUBE-EXT-…
//!         KUBE-SVC-…, KUBE-SVL-… (endpoints of this node) ─▶ KUBE-SEP-…  one endpoint: DNAT
//!         POSTROUTING ─▶ KUBE-POSTROUTING                  what was marked: masqueraded
//! ```
//!
//! - A sync writes the chains that changed and nothing else; a chain that all Services share is written anew when a
//!   rule of it changed. Everything is written at the start, after a failure, and when another hand was at it. Where the
//!   chains are in nf_tables, the kernel tells of that (`nftables/others.rs`), and leaves out what our own programs do; the
//!   legacy tables tell nobody, so the canary chain, which a flush takes along, is looked for once in a sync period.
//! - What `iptables-restore` refuses is traced to the Service by the line that it names, or by trying ever fewer
//!   Services in chains that nothing leads to; that Service is left out and tried again later.
//! - A match or target that the machine lacks costs the Services that need it; one that every rule needs is an error
//!   that names it. A family without working programs is left alone, unless it is the node's primary one.
//! - Two rules count packets, where kernel and programs can, and the counters are among the metrics.
//! - Beyond a thousand endpoints rules that are there once for each endpoint have no comment, as upstream.

mod apply;
mod changed;
mod counters;
mod entry;
mod failure;
mod fixed;
mod legacy;
mod listing;
mod name;
mod plan;
mod restore;
mod runs;
mod saved;
mod tally;
#[cfg(test)]
mod tests;
mod tools;
#[cfg(test)]
pub(in crate::dataplane) mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

pub(super) use self::apply::route_localnet;
use self::changed::Changed;
use self::counters::{Counted, Counters};
use self::entry::{Key, Shared, Table, Value};
use self::fixed::Fixed;
pub(super) use self::legacy::{remove_chains, uses_legacy_tables};
use self::plan::Node;
use self::tally::Tally;
use self::tools::Tools;
pub use self::tools::Variant;
use super::listing::{Difference, Listing};
use super::nftables::{Chains, Others};
use super::retry::Retry;
use super::{CommitError, CommitReport, Dataplane, KernelCounter, LocalTraffic, NodePortAddresses};
use crate::model::ledger::{Diff, Ledger};
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;

/// So many endpoints of a family are shown with comments.
const MOST_COMMENTED: usize = 1000;

/// How the iptables dataplane works on this node. Fixed for its life.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one bit of the packet mark by which packets to masquerade are known.
    pub masquerade_mark: u32,
    /// How pods are told from others, for IPv4 and IPv6.
    pub local_traffic: [LocalTraffic; 2],
    /// Serve IPv4 node ports at the loopback network as well.
    pub localhost_node_ports: bool,
    /// The families to program, if the tools for them work.
    pub families: Vec<Family>,
    /// The one that it does not go without.
    pub primary: Family,
    /// How often to look whether somebody flushed the rules.
    pub sync_period: Duration,
    /// Drop what conntrack finds invalid.
    pub drops_invalid: bool,
}

/// The dataplane. Starts its programs in the network namespace of the thread that commits.
#[derive(Debug)]
pub struct Iptables {
    config: Config,
    node: Node,
    ledger: Ledger<Key, Value>,
    families: [State; 2],
    counters: Counters,
    others: Others,
}

/// One family: what is wanted, and how the kernel differs from it.
#[derive(Debug)]
struct State {
    family: Family,
    fixed: Fixed,
    /// Found at the first commit.
    tools: Option<Tools>,
    /// This family is not programmed.
    off: bool,
    shared: BTreeSet<(Shared, Arc<str>)>,
    /// Chains of endpoints.
    endpoints: usize,
    node_ports: NodePortAddresses,
    changed: Changed,
    /// Everything has to be written.
    full: bool,
    refused: BTreeMap<ObjectName, Retry>,
    /// When to look for the canary.
    look_at: Option<Instant>,
    tally: Tally,
}

impl Config {
    /// Conntrack is strict about TCP windows, so what it calls invalid may be an answer that it would not rewrite.
    pub fn drops_invalid_here() -> bool {
        let liberal = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal");
        liberal.map_or(true, |liberal| liberal.trim() == "0")
    }
}

impl Iptables {
    /// A dataplane without Services. Touches nothing.
    pub fn new(config: Config) -> Self {
        let fixed = |family| Fixed {
            family,
            mark: config.masquerade_mark,
            localhost: config.localhost_node_ports,
            drops_invalid: config.drops_invalid,
            counted: Counted::default(),
            random_fully: true,
        };
        let state = |family| State {
            family,
            fixed: fixed(family),
            tools: None,
            off: !config.families.contains(&family),
            shared: BTreeSet::new(),
            endpoints: 0,
            node_ports: NodePortAddresses::All,
            changed: Changed::default(),
            full: true,
            refused: BTreeMap::new(),
            look_at: None,
            tally: Tally::default(),
        };
        let node = Node {
            local_traffic: config.local_traffic.clone(),
            localhost: config.localhost_node_ports,
        };
        Self {
            families: Family::ALL.map(state),
            counters: Counters::default(),
            others: Others::default(),
            config,
            node,
            ledger: Ledger::new(),
        }
    }

    /// Our chains of which the kernel tells who changes them.
    fn heard_of(&self) -> Chains {
        let variants = Family::ALL.into_iter().zip(self.variants());
        let in_nf_tables = variants.filter(|(_, variant)| *variant == Some(Variant::Nft));
        Chains {
            families: in_nf_tables.map(|(family, _)| family).collect(),
        }
    }

    fn note(&mut self, service: &ObjectName, diff: Diff<Key, Value>) {
        let [v4, v6] = &mut self.families;
        for state in [v4, v6] {
            // What was refused of it is tried anew at once; it is missing in every shared chain.
            if state.refused.remove(service).is_some() {
                state.full = true;
            }
        }
        let added = diff.added.into_iter().map(|(key, to)| (key, None, Some(to)));
        let changed = diff.changed.into_iter();
        let changed = changed.map(|changed| (changed.key, Some(changed.from), Some(changed.to)));
        let removed = diff
            .removed
            .into_iter()
            .map(|(key, from)| (key, Some(from), None));
        for (key, from, to) in added.chain(changed).chain(removed) {
            self.families[key.family() as usize].differs(key, from.as_ref(), to.as_ref());
        }
    }
}

impl State {
    /// A key was added (`from` is missing), removed (`to` is), or has another value.
    fn differs(&mut self, key: Key, from: Option<&Value>, to: Option<&Value>) {
        match key {
            Key::Chain(_, name) => {
                if name::is_of_an_endpoint(&name) {
                    self.endpoints += usize::from(from.is_none());
                    self.endpoints -= usize::from(to.is_none());
                }
                let rules = |value: Option<&Value>| value.map_or(0, |rules| rules.lines().count());
                self.tally.note(Table::Nat, rules(from), rules(to));
                if !self.full {
                    self.changed.chains.insert(name);
                }
            }
            Key::Rules(_, chain, rules) => {
                let count = self.fixed.counted.rules(&rules).count();
                let there = |value: Option<&Value>| if value.is_some() { count } else { 0 };
                self.tally.note(chain.table(), there(from), there(to));
                if !self.full {
                    self.changed.rules(chain, Arc::clone(&rules), to.is_some());
                }
                match to {
                    None => self.shared.remove(&(chain, rules)),
                    Some(_) => self.shared.insert((chain, rules)),
                };
            }
        }
    }
}

impl Dataplane for Iptables {
    fn update(&mut self, service: &ObjectName, view: Option<&ServiceView>) {
        let terse = self
            .families
            .each_ref()
            .map(|state| state.endpoints > MOST_COMMENTED);
        let entries = view.map_or_else(Vec::new, |view| plan::plan(view, &self.node, terse));
        let created = view.and_then(|view| view.created);
        let diff = self.ledger.replace(service, created, entries);
        self.note(service, diff);
    }

    fn set_node_port_addresses(&mut self, family: Family, addresses: NodePortAddresses) {
        let state = &mut self.families[family as usize];
        if state.node_ports != addresses {
            state.node_ports = addresses;
            state.changed.whole(Shared::Services);
        }
    }

    /// By `route_localnet`, which is set when this dataplane is opened: no address of the node is needed.
    fn set_localhost_node_ports(&mut self, _: Family, _: Option<IpAddr>) {}

    /// As upstream, this mode routes on what is sent to an address that no Service has.
    fn set_service_cidrs(&mut self, _: Family, _: &[IpNet]) {}

    fn commit(&mut self, report: &mut CommitReport) -> Result<(), CommitError> {
        self.commit_at(Instant::now(), report)
    }

    fn variants(&self) -> [Option<Variant>; 2] {
        let tools = |state: &State| state.tools.as_ref().filter(|_| !state.off).map(Tools::variant);
        self.families.each_ref().map(tools)
    }

    fn listener(&mut self) -> Option<OwnedFd> {
        self.others.descriptor()
    }

    fn hear(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.others.hear(&self.heard_of(), now);
        Some(self.others.repair_due()?.saturating_duration_since(now))
    }

    fn counters(&self) -> Vec<KernelCounter> {
        self.counters.readers()
    }

    fn planned(&self) -> Listing {
        self.listing()
    }

    fn differences(&mut self) -> Result<Vec<Difference>, CommitError> {
        self.compared()
    }
}
