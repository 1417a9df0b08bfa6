//! By which number a client is remembered to an endpoint. Pure.
//!
//! A number says which endpoint list of which ServicePort, in its upper half (the group), and which endpoint of
//! it, in its lower half. What is remembered is kept by group and client, so it holds for all addresses of a
//! ServicePort; a client that is entitled to this node's endpoints only is remembered apart from what it may
//! have got from the whole cluster.
//!
//! Numbers follow from names and addresses alone, as long as no two fall together, and stay once they are
//! given. So a restarted process mostly means the same by them, and where it does not, the takeover translates.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::entry::Backend;
use crate::model::object::{ObjectName, Protocol};
use crate::model::view::{EndpointList, ServicePortView, ServiceView};

/// Numbers pass through a packet's priority; they have this bit set, which no handle of a queueing discipline
/// has that an administrator makes.
pub(super) const FIRST_NUMBER: u32 = 1 << 31;
/// Set in the numbers of a local list.
const LOCAL: u32 = 1 << 30;
/// Where the number of the group begins.
const GROUP_SHIFT: u32 = 16;
/// The bits of a number that say what it is a number in.
pub(super) const GROUP_MASK: u32 = u32::MAX << GROUP_SHIFT;
/// So many ServicePorts are told apart. Beyond that, clients of two that share a group may lose their endpoint.
const GROUPS: u32 = 1 << 14;
/// So many endpoints of a list can be remembered.
pub(super) const MOST_NUMBERED: usize = 1 << GROUP_SHIFT;

/// The number is one of a local list.
pub(super) fn is_of_local_list(number: u32) -> bool {
    number & LOCAL != 0
}

/// Which ServicePort has which group.
#[derive(Debug, Default)]
pub(super) struct Groups {
    held: HashMap<ObjectName, Vec<PortGroup>>,
    taken: HashSet<u32>,
}

/// The group of a ServicePort, in all families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortGroup {
    pub(super) port_name: Arc<str>,
    pub(super) protocol: Protocol,
    /// Below [`GROUPS`].
    pub(super) group: u32,
}

impl PortGroup {
    pub(super) fn is_of(&self, port: &ServicePortView) -> bool {
        *self.port_name == *port.port_name && self.protocol == port.protocol
    }
}

impl Groups {
    /// The groups of a Service's ports with session affinity. A port keeps its group; those of ports that no
    /// longer have affinity are free again.
    pub(super) fn of(&mut self, service: &ObjectName, view: Option<&ServiceView>) -> &[PortGroup] {
        let old = self.held.remove(service).unwrap_or_default();
        for held in &old {
            self.taken.remove(&held.group);
        }
        let ports = view.iter().flat_map(|view| &view.ports);
        let mut groups: Vec<PortGroup> = Vec::new();
        for port in ports.filter(|port| port.affinity.is_some()) {
            if groups.iter().any(|group| group.is_of(port)) {
                continue;
            }
            let group = match old.iter().find(|held| held.is_of(port)) {
                Some(held) => held.group,
                None => self.free(hash(service, &port.port_name, port.protocol) % GROUPS, &old),
            };
            groups.push(PortGroup {
                port_name: port.port_name.clone(),
                protocol: port.protocol,
                group,
            });
            self.taken.insert(group);
        }
        if groups.is_empty() {
            return &[];
        }
        self.held.entry(service.clone()).or_insert(groups)
    }

    /// A group that is free, `first` if possible, and that none of `reserved` is to keep.
    fn free(&self, first: u32, reserved: &[PortGroup]) -> u32 {
        let free =
            |group: &u32| !self.taken.contains(group) && reserved.iter().all(|held| held.group != *group);
        let mut all = (0..GROUPS).map(|offset| (first + offset) % GROUPS);
        all.find(free).unwrap_or(first)
    }
}

/// The numbers of a list's endpoints, each another one; those `held` in the same group stay.
pub(super) fn numbers(
    list: EndpointList,
    group: u32,
    backends: &[Backend],
    held: &HashMap<Backend, u32>,
) -> HashMap<Backend, u32> {
    let local = match list {
        EndpointList::Cluster => 0,
        EndpointList::Local => LOCAL,
    };
    let first = FIRST_NUMBER | local | group << GROUP_SHIFT;
    let kept = |backend: &Backend| {
        let number = *held.get(backend)?;
        (number & GROUP_MASK == first).then_some((*backend, number))
    };
    let mut numbers: HashMap<Backend, u32> = backends.iter().filter_map(kept).collect();
    let mut taken: HashSet<u32> = numbers.values().copied().collect();
    // Sorted, so that it does not depend on who sits where which of two gets the number of both.
    let mut new: Vec<Backend> = backends
        .iter()
        .filter(|backend| !numbers.contains_key(backend))
        .copied()
        .collect();
    new.sort_unstable();
    for backend in new {
        let wanted = feed_address(FNV_OFFSET, backend);
        let mut all = (0..=!GROUP_MASK).map(|offset| first | (wanted.wrapping_add(offset) & !GROUP_MASK));
        if let Some(number) = all.find(|number| taken.insert(*number)) {
            numbers.insert(backend, number);
        }
    }
    numbers
}

/// FNV-1a: the same in every process, which the standard library does not promise of its own.
const FNV_OFFSET: u32 = 0x811c_9dc5;

fn feed(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

fn feed_address(hash: u32, backend: Backend) -> u32 {
    let address = match backend.ip {
        IpAddr::V4(ip) => ip.octets().into_iter().fold(hash, feed),
        IpAddr::V6(ip) => ip.octets().into_iter().fold(hash, feed),
    };
    mixed(backend.port.to_be_bytes().into_iter().fold(address, feed))
}

fn hash(service: &ObjectName, port_name: &str, protocol: Protocol) -> u32 {
    let texts = [&*service.namespace, &*service.name, port_name];
    let named = texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .fold(FNV_OFFSET, feed);
    mixed(feed(named, protocol.number()))
}

/// Folds the upper half into the lower, which is the one that counts.
fn mixed(hash: u32) -> u32 {
    hash ^ hash >> 16
}
