//! The observed cluster and which Services a change touches.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::address::{self, Claimant, Destination};
use super::change::{Change, Kind};
use super::ledger::{Diff, Ledger};
use super::object::{EndpointSlice, Family, Node, ObjectName, Service};
use super::resolve::Resolver;
use super::service_cidr::ServiceCidrs;
use super::slice::{HeldSlice, Pools};
use super::view::ServiceView;

/// What the model needs to know about the configuration and this node.
#[derive(Clone, Debug, Default)]
pub struct TrafficConfig {
    /// This node's name, lower case; an endpoint is local when its `nodeName` equals it.
    pub node_name: Arc<str>,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Whether the dataplane can tell pods from others, for IPv4 and IPv6.
    pub detects_pods: [bool; 2],
    /// The node's addresses, for the question whether source ranges include the node. They alone may change
    /// in the life of a [`Cluster`], by [`Cluster::set_node_ips`].
    pub node_ips: Vec<IpAddr>,
}

impl TrafficConfig {
    /// Whether pods are told from others in this family.
    pub fn detects_pods(&self, family: Family) -> bool {
        self.detects_pods[family as usize]
    }
}

/// The observed state, indexed by Service, with the Services that need resolving.
#[derive(Debug)]
pub struct Cluster {
    config: TrafficConfig,
    /// The zone of this node.
    zone: Option<Arc<str>>,
    /// Services, and slices by the Service that they name, which may not be there (yet).
    services: HashMap<ObjectName, Held>,
    /// How many of them are Services; the others are named by slices alone.
    service_count: usize,
    /// Under which Service a slice is held.
    slices: HashMap<ObjectName, Filed>,
    /// Who has which address and node port.
    claims: Ledger<Destination, Claimant>,
    dirty: BTreeSet<ObjectName>,
    service_cidrs: ServiceCidrs,
    service_list: List,
    slice_list: List,
    pools: Pools,
}

/// What is held under one Service's name.
#[derive(Debug, Default)]
struct Held {
    service: Option<Box<Service>>,
    /// The list that named the Service last.
    named_by: u32,
    /// In order of their names.
    slices: Vec<HeldSlice>,
}

/// Where a slice is held.
#[derive(Debug)]
struct Filed {
    /// Name of its Service, in the slice's namespace.
    service: Arc<str>,
    /// The list that named the slice last.
    named_by: u32,
}

/// How far the lists of one kind have come.
#[derive(Debug, Default)]
struct List {
    /// Number of the list that began last. An object bears the number of the list in which, or after whose
    /// start, it was last seen.
    number: u32,
    /// A list has been complete once.
    complete: bool,
}

impl Cluster {
    /// An empty cluster.
    pub fn new(config: TrafficConfig) -> Self {
        Self {
            config,
            zone: None,
            services: HashMap::new(),
            service_count: 0,
            slices: HashMap::new(),
            claims: Ledger::new(),
            dirty: BTreeSet::new(),
            service_cidrs: ServiceCidrs::default(),
            service_list: List::default(),
            slice_list: List::default(),
            pools: Pools::default(),
        }
    }

    /// Takes one change in and marks the Services that it touches. What equals the held state touches none. Whether
    /// it is an EndpointSlice that touches one.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::ListStart(Kind::Service) => self.service_list.number += 1,
            Change::ListStart(Kind::EndpointSlice) => self.slice_list.number += 1,
            Change::ListDone(Kind::Service) => self.end_service_list(),
            Change::ListDone(Kind::EndpointSlice) => self.end_slice_list(),
            Change::ListStart(Kind::ServiceCidr) => self.service_cidrs.begin_list(),
            Change::ListDone(Kind::ServiceCidr) => self.service_cidrs.end_list(),
            Change::Service(service) => self.hold_service(service),
            Change::EndpointSlice(slice) => return self.hold_slice(*slice),
            Change::Node(node) => self.observe_node(*node),
            Change::ServiceCidr(object) => self.service_cidrs.hold(*object),
            Change::Deleted(Kind::Service, name) => self.drop_service(&name),
            Change::Deleted(Kind::EndpointSlice, name) => self.drop_slice(&name),
            Change::Deleted(Kind::ServiceCidr, name) => self.service_cidrs.remove(&name),
            Change::Kept(Kind::Service, name) => {
                if let Some(held) = self.services.get_mut(&name) {
                    held.named_by = self.service_list.number;
                }
            }
            Change::Kept(Kind::EndpointSlice, name) => {
                if let Some(filed) = self.slices.get_mut(&name) {
                    filed.named_by = self.slice_list.number;
                }
            }
            Change::Kept(Kind::ServiceCidr, name) => self.service_cidrs.keep(&name),
            // A deleted Node is about to go or about to come back; until then its last state serves.
            Change::ListStart(Kind::Node)
            | Change::ListDone(Kind::Node)
            | Change::Kept(Kind::Node, _)
            | Change::Deleted(Kind::Node, _) => {}
        }
        false
    }

    /// Services and EndpointSlices have both delivered their first state.
    pub fn is_synced(&self) -> bool {
        self.service_list.complete && self.slice_list.complete
    }

    /// How many Services and EndpointSlices are held.
    pub fn counts(&self) -> (usize, usize) {
        (self.service_count, self.slices.len())
    }

    /// The Services touched since the last call, each once, in order of name. A Service that won or lost an
    /// address by another's change is named as well.
    pub fn take_dirty(&mut self) -> Vec<ObjectName> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// The networks of the ServiceCIDRs by family (IPv4, IPv6), disjoint and sorted, if they are others than at
    /// the last call; at first they are none.
    pub fn take_service_cidrs(&mut self) -> Option<[Vec<IpNet>; 2]> {
        self.service_cidrs.take()
    }

    /// The node has these addresses now. Touches the Services that only some sources may use.
    pub fn set_node_ips(&mut self, node_ips: Vec<IpAddr>) {
        if self.config.node_ips == node_ips {
            return;
        }
        self.config.node_ips = node_ips;
        let restricted = |service: &Service| !service.source_ranges.is_empty();
        let touched = self
            .services
            .iter()
            .filter(|(_, held)| held.service.as_deref().is_some_and(restricted));
        self.dirty.extend(touched.map(|(name, _)| name.clone()));
    }

    /// Decides everything about one Service; `None` when it does not exist or is not proxied.
    pub fn resolve(&self, name: &ObjectName) -> Option<ServiceView> {
        let held = self.services.get(name)?;
        let resolver = Resolver {
            config: &self.config,
            zone: self.zone.as_deref(),
            claims: &self.claims,
            service: held.service.as_deref()?,
            slices: &held.slices,
        };
        resolver.resolve()
    }

    /// Nothing is held: no object, and nothing derived from one.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.slices.is_empty() && self.claims.is_empty()
    }

    fn end_service_list(&mut self) {
        let number = self.service_list.number;
        let unnamed = |(_, held): &(&ObjectName, &Held)| held.service.is_some() && held.named_by != number;
        let gone: Vec<_> = self
            .services
            .iter()
            .filter(unnamed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.drop_service(&name);
        }
        self.service_list.complete = true;
    }

    fn end_slice_list(&mut self) {
        let number = self.slice_list.number;
        let unnamed = |(_, filed): &(&ObjectName, &Filed)| filed.named_by != number;
        let gone: Vec<_> = self
            .slices
            .iter()
            .filter(unnamed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.drop_slice(&name);
        }
        self.slice_list.complete = true;
    }

    fn hold_service(&mut self, mut service: Box<Service>) {
        self.share_strings(&mut service);
        let entry = self.services.entry(service.name.clone());
        service.name = entry.key().clone();
        let held = entry.or_default();
        held.named_by = self.service_list.number;
        if held.service.as_ref() == Some(&service) {
            return;
        }
        self.service_count += usize::from(held.service.is_none());
        let claims = address::claims(&service);
        let diff = self.claims.replace(&service.name, service.created, claims);
        self.dirty.insert(service.name.clone());
        held.service = Some(service);
        self.mark_claimants(&diff);
    }

    fn drop_service(&mut self, name: &ObjectName) {
        let Some(held) = self.services.get_mut(name) else {
            return;
        };
        if held.service.take().is_none() {
            return;
        }
        self.service_count -= 1;
        if held.slices.is_empty() {
            self.services.remove(name);
        }
        self.dirty.insert(name.clone());
        let diff = self.claims.remove(name);
        self.mark_claimants(&diff);
    }

    /// Marks everybody who wants what went from one Service to another: the two, and those still waiting,
    /// who have another winner to name.
    fn mark_claimants(&mut self, diff: &Diff<Destination, Claimant>) {
        for changed in &diff.changed {
            self.dirty.extend(self.claims.claimants(&changed.key).cloned());
        }
    }

    fn hold_slice(&mut self, mut slice: EndpointSlice) -> bool {
        let Some(service) = slice.service.take() else {
            self.drop_slice(&slice.name);
            return false;
        };
        match self.slices.get_key_value(&slice.name) {
            Some((name, filed)) => {
                slice.name = name.clone();
                if filed.service != service {
                    self.drop_slice(&slice.name);
                }
            }
            None => slice.name.namespace = self.pools.names.share(slice.name.namespace),
        }
        let name = slice.name.clone();
        let owner = ObjectName {
            namespace: name.namespace.clone(),
            name: service,
        };
        let slice = HeldSlice::new(slice, &self.config.node_name, &mut self.pools);
        let entry = self.services.entry(owner);
        let owner = entry.key().clone();
        let held = entry.or_default();
        let touches = held.hold_slice(slice) && held.service.is_some();
        if touches {
            self.dirty.insert(owner.clone());
        }
        let filed = Filed {
            service: owner.name,
            named_by: self.slice_list.number,
        };
        self.slices.insert(name, filed);
        touches
    }

    fn drop_slice(&mut self, name: &ObjectName) {
        let Some(filed) = self.slices.remove(name) else {
            return;
        };
        let owner = ObjectName {
            namespace: name.namespace.clone(),
            name: filed.service,
        };
        let Some(held) = self.services.get_mut(&owner) else {
            return;
        };
        held.slices.retain(|slice| slice.name != name.name);
        if held.service.is_some() {
            self.dirty.insert(owner);
        } else if held.slices.is_empty() {
            self.services.remove(&owner);
        }
    }

    /// Of the Node only the zone decides anything here, and only where endpoints have hints for zones.
    fn observe_node(&mut self, node: Node) {
        if self.zone == node.zone {
            return;
        }
        self.zone = node.zone;
        let hinted =
            |held: &Held| held.service.is_some() && held.slices.iter().any(HeldSlice::has_zone_hints);
        let touched = self.services.iter().filter(|(_, held)| hinted(held));
        self.dirty.extend(touched.map(|(name, _)| name.clone()));
    }

    /// Services are many and alike: what they repeat is held once, and nothing more than is needed.
    fn share_strings(&mut self, service: &mut Service) {
        let names = &mut self.pools.names;
        service.name.namespace = names.share(service.name.namespace.clone());
        for port in &mut service.ports {
            port.name = names.share(port.name.clone());
        }
        service.ports.shrink_to_fit();
        service.cluster_ips.shrink_to_fit();
        service.ip_families.shrink_to_fit();
        service.external_ips.shrink_to_fit();
        service.load_balancer_ingress.shrink_to_fit();
        service.source_ranges.shrink_to_fit();
    }
}

impl Held {
    /// Holds a slice in its place; whether that changed anything.
    fn hold_slice(&mut self, slice: HeldSlice) -> bool {
        match self.slices.binary_search_by(|held| held.name.cmp(&slice.name)) {
            Ok(index) if self.slices[index] == slice => false,
            Ok(index) => {
                self.slices[index] = slice;
                true
            }
            Err(index) => {
                self.slices.reserve_exact(1);
                self.slices.insert(index, slice);
                true
            }
        }
    }
}
