//! What the dataplane is told at the start, and which addresses accept node ports.

use std::path::Path;

use super::layout::Layout;
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
    /// Name of the tables; another one than `kube-proxy` only where something else owns that.
    pub table: String,
}

impl Default for Config {
    /// Bit 14, pods unknown, both families, table `kube-proxy`.
    fn default() -> Self {
        Self {
            masquerade_mark: 1 << 14,
            local_traffic: [LocalTraffic::Unknown, LocalTraffic::Unknown],
            families: Family::ALL.to_vec(),
            table: "kube-proxy".to_owned(),
        }
    }
}

impl Config {
    /// The families that this kernel can route: IPv6 may be left out of it, or switched off at its start.
    pub fn families_of_this_kernel() -> Vec<Family> {
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        let here = |family: &Family| *family == Family::V4 || has_ipv6;
        Family::ALL.into_iter().filter(here).collect()
    }

    pub(super) fn rules(&self, family: Family) -> Rules<'_> {
        Rules {
            layout: Layout::of(family),
            local_traffic: &self.local_traffic[family as usize],
            masquerade_mark: self.masquerade_mark,
        }
    }

    /// Whether pods are told from others, by family.
    pub(super) fn knows_pods(&self) -> [bool; 2] {
        Family::ALL.map(|family| self.rules(family).knows_pods())
    }
}

/// Which addresses accept node ports, by family, and whether the rules say so yet.
#[derive(Debug)]
pub(super) struct NodePorts {
    addresses: [NodePortAddresses; 2],
    rules_changed: [bool; 2],
}

impl Default for NodePorts {
    /// All of them.
    fn default() -> Self {
        Self {
            addresses: [NodePortAddresses::All, NodePortAddresses::All],
            rules_changed: [false; 2],
        }
    }
}

impl NodePorts {
    /// Sets the addresses of a family.
    pub(super) fn set(&mut self, family: Family, addresses: NodePortAddresses) {
        let was_on_all = self.on_all(family);
        self.addresses[family as usize] = addresses;
        if self.on_all(family) != was_on_all {
            // Set to and fro between two commits, the rules are right as they are.
            self.rules_changed[family as usize] ^= true;
        }
    }

    /// Every local address accepts node ports.
    pub(super) fn on_all(&self, family: Family) -> bool {
        self.addresses[family as usize] == NodePortAddresses::All
    }

    /// The families whose rules do not follow yet.
    pub(super) fn rules_changed(&self) -> impl Iterator<Item = Family> {
        let changed = self.rules_changed;
        Family::ALL
            .into_iter()
            .filter(move |family| changed[*family as usize])
    }

    /// The rules follow.
    pub(super) fn rules_written(&mut self) {
        self.rules_changed = [false; 2];
    }
}
