//! The networks out of which ClusterIPs come: what ServiceCIDRs say, put together.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::object::{Family, ObjectName, ServiceCidr};

/// The ServiceCIDRs as observed.
#[derive(Debug, Default)]
pub(super) struct ServiceCidrs {
    held: BTreeMap<ObjectName, Held>,
    /// Number of the list that began last.
    list: u32,
    /// Something changed since the networks were last taken.
    changed: bool,
    taken: [Vec<IpNet>; 2],
}

#[derive(Debug)]
struct Held {
    cidrs: Vec<IpNet>,
    /// The list that named it last.
    named_by: u32,
}

impl ServiceCidrs {
    pub(super) fn hold(&mut self, object: ServiceCidr) {
        let held = Held {
            cidrs: object.cidrs,
            named_by: self.list,
        };
        self.held.insert(object.name, held);
        self.changed = true;
    }

    pub(super) fn remove(&mut self, name: &ObjectName) {
        self.held.remove(name);
        self.changed = true;
    }

    pub(super) fn keep(&mut self, name: &ObjectName) {
        if let Some(held) = self.held.get_mut(name) {
            held.named_by = self.list;
        }
    }

    pub(super) fn begin_list(&mut self) {
        self.list += 1;
    }

    pub(super) fn end_list(&mut self) {
        let list = self.list;
        self.held.retain(|_, held| held.named_by == list);
        self.changed = true;
    }

    /// The networks of each family (IPv4, IPv6), disjoint and sorted, if they are others than at the last call.
    pub(super) fn take(&mut self) -> Option<[Vec<IpNet>; 2]> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let all: Vec<IpNet> = self.held.values().flat_map(|held| &held.cidrs).copied().collect();
        let all = IpNet::aggregate(&all);
        let of = |family| {
            all.iter()
                .filter(move |net| Family::of(net.addr()) == family)
                .copied()
        };
        let networks = Family::ALL.map(|family| of(family).collect());
        if networks == self.taken {
            return None;
        }
        self.taken.clone_from(&networks);
        Some(networks)
    }
}
