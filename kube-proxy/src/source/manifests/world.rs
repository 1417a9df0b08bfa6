//! The objects of all manifests together: completes Services, makes the slices that controllers would make,
//! and says what changed. A change costs what it touches, not what there is, but for the choice of clusterIPs
//! and node ports, which is made anew among all Services when one of them changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use tracing::{info, warn};

use super::allocate::{Given, allocate};
use super::derive;
use super::object::{Key, Kind, Object};
use crate::model::change::{self, Change};
use crate::model::object::{EndpointSlice, ObjectName};
use crate::source::convert::{self, Interner};
use crate::source::wire;

/// See the module.
pub(super) struct World {
    ranges: Vec<IpNet>,
    interner: Interner,
    objects: BTreeMap<Key, Arc<Object>>,
    /// What changed since the last call of [`World::changes`], with what it was before.
    touched: BTreeMap<Key, Option<Arc<Object>>>,
    given: BTreeMap<ObjectName, Given>,
    /// How many slices of its own a Service has.
    own_slices: HashMap<ObjectName, usize>,
    /// The slices that were made for a Service.
    made: HashMap<ObjectName, Vec<EndpointSlice>>,
    /// What was pointed out about a Service's Pods.
    hints: HashMap<ObjectName, Vec<String>>,
}

/// Services that need another look; `true` when the Service itself changed, not only its endpoints.
#[derive(Default)]
struct Affected(BTreeMap<ObjectName, bool>);

impl Affected {
    fn itself(&mut self, name: ObjectName) {
        self.0.insert(name, true);
    }

    fn endpoints(&mut self, name: ObjectName) {
        self.0.entry(name).or_insert(false);
    }
}

impl World {
    pub(super) fn new(ranges: Vec<IpNet>) -> Self {
        Self {
            ranges,
            interner: Interner::default(),
            objects: BTreeMap::new(),
            touched: BTreeMap::new(),
            given: BTreeMap::new(),
            own_slices: HashMap::new(),
            made: HashMap::new(),
            hints: HashMap::new(),
        }
    }

    /// Strings that repeat.
    pub(super) fn interner(&mut self) -> &mut Interner {
        &mut self.interner
    }

    /// What an object is now; `None`: it is gone.
    pub(super) fn set(&mut self, key: Key, object: Option<Arc<Object>>) {
        let same = match (self.objects.get(&key), &object) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            (old, new) => old.is_none() && new.is_none(),
        };
        if same {
            return;
        }
        let old = match object {
            Some(object) => self.objects.insert(key.clone(), object),
            None => self.objects.remove(&key),
        };
        self.touched.entry(key).or_insert(old);
    }

    /// What changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        let mut changes = Vec::new();
        let mut services = Affected::default();
        if touched.keys().any(|key| key.kind == Kind::Service) {
            self.allocate(&mut services);
        }
        for (key, old) in &touched {
            match key.kind {
                Kind::Service => {
                    services.itself(key.name.clone());
                    if old.as_deref().is_some_and(is_proxied) && !self.is_proxied(&key.name) {
                        changes.push(Change::Deleted(change::Kind::Service, key.name.clone()));
                    }
                }
                Kind::EndpointSlice => self.slice_changed(key, old.as_deref(), &mut services, &mut changes),
                Kind::Endpoints => services.endpoints(key.name.clone()),
                Kind::Pod => {
                    for name in self.selecting(key, old.as_deref()) {
                        services.endpoints(name);
                    }
                }
                Kind::Node => changes.push(match self.objects.get(key).map(AsRef::as_ref) {
                    Some(Object::Node(node)) => Change::Node(node.clone()),
                    _ => Change::Deleted(change::Kind::Node, key.name.clone()),
                }),
                Kind::ServiceCidr => changes.push(match self.objects.get(key).map(AsRef::as_ref) {
                    Some(Object::ServiceCidr(cidr)) => Change::ServiceCidr(cidr.clone()),
                    _ => Change::Deleted(change::Kind::ServiceCidr, key.name.clone()),
                }),
            }
        }
        for (name, itself) in services.0 {
            self.service_changed(&name, itself, &mut changes);
        }
        changes
    }

    /// Chooses clusterIPs and node ports anew; adds the Services whose choice changed.
    fn allocate(&mut self, changed: &mut Affected) {
        let services = self
            .objects
            .iter()
            .filter_map(|(key, object)| match object.as_ref() {
                Object::Service(service) if is_proxied(object) => Some((&key.name, service.as_ref())),
                _ => None,
            });
        let given = allocate(services, &self.ranges);
        for (name, gets) in &given {
            if self.given.get(name) == Some(gets) {
                continue;
            }
            changed.itself(name.clone());
            if let Some(family) = gets.missing {
                warn!(
                    service = %name, ip_family = %family, ranges = ?self.ranges,
                    "A Service gets no clusterIP: no address of its family is free in --service-cluster-ip-range"
                );
            }
            info!(
                service = %name, cluster_ips = ?gets.cluster_ips, node_ports = ?gets.node_ports,
                "A Service gets what its manifest leaves to a cluster"
            );
        }
        for gone in self.given.keys().filter(|name| !given.contains_key(*name)) {
            changed.itself(gone.clone());
        }
        self.given = given;
    }

    fn service(&self, name: &ObjectName) -> Option<&wire::Service> {
        let key = Key {
            kind: Kind::Service,
            name: name.clone(),
        };
        match self.objects.get(&key)?.as_ref() {
            object @ Object::Service(service) if is_proxied(object) => Some(service),
            _ => None,
        }
    }

    fn is_proxied(&self, name: &ObjectName) -> bool {
        self.service(name).is_some()
    }

    /// Tells a Service as it is now, if it changed itself, and the slices that are made for it.
    fn service_changed(&mut self, name: &ObjectName, itself: bool, changes: &mut Vec<Change>) {
        let service = self.service(name).map(|service| {
            let mut service = service.clone();
            if let Some(given) = self.given.get(name) {
                given.complete(&mut service);
            }
            service
        });
        let made = match &service {
            Some(service) => self.make_slices(name, service),
            None => Vec::new(),
        };
        if itself
            && let Some(service) = service
            && let Some(object) = convert::service(&service, &mut self.interner).object
        {
            changes.push(Change::Service(Box::new(object)));
        }
        let before = self.made.remove(name).unwrap_or_default();
        for old in &before {
            if !made.iter().any(|new| new.name == old.name) {
                changes.push(Change::Deleted(change::Kind::EndpointSlice, old.name.clone()));
            }
        }
        for new in made.iter().filter(|new| !before.contains(new)) {
            changes.push(Change::EndpointSlice(Box::new(new.clone())));
        }
        if !made.is_empty() {
            self.made.insert(name.clone(), made);
        }
    }

    /// The slices that a cluster's controllers would make for a Service. One that has slices of its own needs
    /// none; Endpoints come next; Pods are for those that have neither.
    fn make_slices(&mut self, name: &ObjectName, service: &wire::Service) -> Vec<EndpointSlice> {
        let mut hints = Vec::new();
        let slices = if self.own_slices.contains_key(name) {
            Vec::new()
        } else if let Some(endpoints) = self.endpoints(name) {
            derive::of_endpoints(name, endpoints)
        } else {
            let derived = derive::of_pods(name, service, self.pods(&name.namespace));
            hints = derived.hints;
            derived.slices
        };
        self.point_out(name, hints);
        let interner = &mut self.interner;
        slices
            .iter()
            .filter_map(|slice| convert::endpoint_slice(slice, interner).object)
            .collect()
    }

    fn endpoints(&self, name: &ObjectName) -> Option<&wire::Endpoints> {
        let key = Key {
            kind: Kind::Endpoints,
            name: name.clone(),
        };
        match self.objects.get(&key)?.as_ref() {
            Object::Endpoints(endpoints) => Some(endpoints),
            _ => None,
        }
    }

    fn in_namespace(&self, kind: Kind, namespace: &Arc<str>) -> impl Iterator<Item = (&ObjectName, &Object)> {
        let first = Key {
            kind,
            name: ObjectName::new(Arc::clone(namespace), ""),
        };
        let namespace = Arc::clone(namespace);
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && key.name.namespace == namespace)
            .map(|(key, object)| (&key.name, object.as_ref()))
    }

    fn pods(&self, namespace: &Arc<str>) -> impl Iterator<Item = (&ObjectName, &wire::Pod)> {
        self.in_namespace(Kind::Pod, namespace)
            .filter_map(|(name, object)| match object {
                Object::Pod(pod) => Some((name, pod.as_ref())),
                _ => None,
            })
    }

    /// The Services that select a Pod as it is now or as it was.
    fn selecting(&self, pod: &Key, old: Option<&Object>) -> Vec<ObjectName> {
        let new = self.objects.get(pod).map(AsRef::as_ref);
        let versions = [old, new];
        let selects = |service: &wire::Service| {
            versions.iter().flatten().any(|version| match version {
                Object::Pod(pod) => derive::selects(service, pod),
                _ => false,
            })
        };
        self.in_namespace(Kind::Service, &pod.name.namespace)
            .filter(|(_, object)| matches!(object, Object::Service(service) if selects(service)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn slice_changed(
        &mut self,
        key: &Key,
        old: Option<&Object>,
        services: &mut Affected,
        changes: &mut Vec<Change>,
    ) {
        let new = self.objects.get(key).map(Arc::clone);
        let (old, new) = (old.and_then(slice_of), new.as_deref().and_then(slice_of));
        changes.push(match new {
            Some(slice) => Change::EndpointSlice(Box::new(slice.clone())),
            None => Change::Deleted(change::Kind::EndpointSlice, key.name.clone()),
        });
        let (from, to) = (old.and_then(service_of), new.and_then(service_of));
        if from == to {
            return;
        }
        if let Some(to) = to {
            *self.own_slices.entry(to.clone()).or_default() += 1;
            services.endpoints(to);
        }
        if let Some(from) = from {
            let left = self
                .own_slices
                .get(&from)
                .copied()
                .unwrap_or_default()
                .saturating_sub(1);
            if left == 0 {
                self.own_slices.remove(&from);
            } else {
                self.own_slices.insert(from.clone(), left);
            }
            services.endpoints(from);
        }
    }

    /// Logs what is new about a Service's Pods.
    fn point_out(&mut self, name: &ObjectName, hints: Vec<String>) {
        let before = self.hints.remove(name).unwrap_or_default();
        for hint in hints.iter().filter(|hint| !before.contains(hint)) {
            warn!("{hint}");
        }
        if !hints.is_empty() {
            self.hints.insert(name.clone(), hints);
        }
    }
}

fn is_proxied(object: &Object) -> bool {
    matches!(object, Object::Service(service) if convert::selects_service(service))
}

fn slice_of(object: &Object) -> Option<&EndpointSlice> {
    match object {
        Object::EndpointSlice(slice) => Some(slice),
        _ => None,
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectName> {
    let service = slice.service.clone()?;
    Some(ObjectName::new(Arc::clone(&slice.name.namespace), service))
}
