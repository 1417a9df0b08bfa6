//! Resolving: everything about one Service put together into its view.

use std::collections::HashSet;

use super::address::{self, Claimant, Destination, Wanted};
use super::cluster::TrafficConfig;
use super::endpoint;
use super::ledger::Ledger;
use super::object::{Family, Service, ServicePort, ServiceType, TrafficPolicy};
use super::slice::HeldSlice;
use super::traffic_policy::{self, Endpoints, Policies};
use super::view::{
    AddressKind, Conflict, EndpointList, HealthCheck, ServiceAddress, ServicePortView, ServiceView,
};

/// What decides about one Service.
pub(super) struct Resolver<'a> {
    pub(super) config: &'a TrafficConfig,
    /// The zone of this node.
    pub(super) zone: Option<&'a str>,
    /// Who has which destination.
    pub(super) claims: &'a Ledger<Destination, Claimant>,
    pub(super) service: &'a Service,
    /// All slices of the Service.
    pub(super) slices: &'a [HeldSlice],
}

impl Resolver<'_> {
    /// The Service's view; `None` when it is not proxied.
    pub(super) fn resolve(&self) -> Option<ServiceView> {
        let cluster_ips: Vec<_> = address::families(self.service).map(|(_, ip)| ip).collect();
        if cluster_ips.is_empty() {
            return None;
        }
        let mut view = ServiceView {
            name: self.service.name.clone(),
            created: self.service.created,
            cluster_ips,
            ports: Vec::new(),
            conflicts: Vec::new(),
            health_check: self.health_check(),
            ipvs_scheduler: self.service.ipvs_scheduler.clone(),
        };
        for (index, port) in self.service.ports.iter().enumerate() {
            for (family, cluster_ip) in address::families(self.service) {
                let mut wanted = Vec::new();
                for address in address::wanted(self.service, port, family, cluster_ip) {
                    match self.conflict(index, port, family, &address) {
                        None => wanted.push(address),
                        Some(conflict) if view.conflicts.contains(&conflict) => {}
                        Some(conflict) => view.conflicts.push(conflict),
                    }
                }
                view.ports.push(self.port(port, family, &wanted));
            }
        }
        Some(view)
    }

    /// Who else has an address that a port asks for: an older Service, or an earlier port of this one.
    fn conflict(
        &self,
        index: usize,
        port: &ServicePort,
        family: Family,
        wanted: &Wanted,
    ) -> Option<Conflict> {
        let held = self.claims.get(&wanted.destination)?;
        let ours = *held.holder == self.service.name && held.value.port == index;
        (!ours).then(|| Conflict {
            ip: wanted.ip,
            family,
            protocol: port.protocol,
            port: wanted.port,
            winner: held.holder.clone(),
        })
    }

    /// One port in one family, with the addresses that it got.
    fn port(&self, port: &ServicePort, family: Family, wanted: &[Wanted]) -> ServicePortView {
        let policies = Policies {
            internal: self.service.internal_traffic_policy,
            external: traffic_policy::external_policy(self.service),
            detects_pods: self.config.detects_pods(family),
            masquerade_all: self.config.masquerade_all,
        };
        let candidates = endpoint::merge(self.slices, family, &port.name, port.protocol);
        let endpoints = Endpoints::choose(&candidates, self.zone);
        let mut addresses: Vec<ServiceAddress> = Vec::with_capacity(wanted.len());
        for address in wanted {
            if !addresses
                .iter()
                .any(|other| (other.ip, other.port) == (address.ip, address.port))
            {
                addresses.push(self.address(address, policies, &endpoints));
            }
        }
        let uses = |list| addresses.iter().any(|address| address.delivers_to(list));
        ServicePortView {
            port_name: port.name.clone(),
            protocol: port.protocol,
            family,
            cluster_endpoints: if uses(EndpointList::Cluster) {
                endpoints.cluster
            } else {
                Vec::new()
            },
            local_endpoints: if uses(EndpointList::Local) {
                endpoints.local
            } else {
                Vec::new()
            },
            flow_endpoints: traffic_policy::flow_endpoints(&candidates, port.protocol),
            affinity: self.service.session_affinity.filter(|seconds| *seconds > 0),
            addresses,
        }
    }

    fn address(&self, wanted: &Wanted, policies: Policies, endpoints: &Endpoints) -> ServiceAddress {
        let deliveries = policies.deliveries(wanted.kind, endpoints);
        let guarded = wanted.ip.filter(|_| wanted.kind == AddressKind::LoadBalancerIp);
        ServiceAddress {
            kind: wanted.kind,
            ip: wanted.ip,
            port: wanted.port,
            source_ranges: guarded.and_then(|vip| address::source_ranges(self.service, vip, self.config)),
            from_pods: deliveries.from_pods,
            from_host: deliveries.from_host,
            from_outside: deliveries.from_outside,
        }
    }

    /// The health-check server of a load balancer that has to find the nodes with endpoints.
    fn health_check(&self) -> Option<HealthCheck> {
        let port = self.service.health_check_node_port;
        if port == 0
            || self.service.service_type != ServiceType::LoadBalancer
            || traffic_policy::external_policy(self.service) != TrafficPolicy::Local
        {
            return None;
        }
        let mut local_endpoints = [None; 2];
        for (family, _) in address::families(self.service) {
            local_endpoints[family as usize] = Some(self.local_ready_addresses(family));
        }
        Some(HealthCheck {
            port,
            local_endpoints,
        })
    }

    /// Distinct addresses of this node's ready endpoints, over all ports of the slices.
    fn local_ready_addresses(&self, family: Family) -> usize {
        let slices = self.slices.iter().filter(|slice| slice.family == family);
        let ports: HashSet<_> = slices
            .flat_map(|slice| &slice.ports)
            .map(|port| (&*port.name, port.protocol))
            .collect();
        let mut addresses = HashSet::new();
        for (name, protocol) in ports {
            let candidates = endpoint::merge(self.slices, family, name, protocol);
            let ready = candidates
                .iter()
                .filter(|candidate| candidate.held.ready && candidate.held.is_local);
            addresses.extend(ready.map(|candidate| candidate.ip));
        }
        addresses.len()
    }
}
