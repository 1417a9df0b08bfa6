//! Traffic policies: which endpoints serve which traffic, which keep the flows they have, and whose source address
//! is replaced.

use std::net::SocketAddr;

use super::endpoint::Candidate;
use super::object::{Protocol, Service, ServiceType, TrafficPolicy};
use super::topology::Topology;
use super::view::{AddressKind, Delivery, Endpoint, EndpointList};

/// Everything about the Service and the node that decides deliveries, in one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policies {
    pub(super) internal: TrafficPolicy,
    pub(super) external: TrafficPolicy,
    /// Pods can be told from others.
    pub(super) detects_pods: bool,
    pub(super) masquerade_all: bool,
}

/// The endpoint lists of a ServicePort, decided for this node.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) cluster: Vec<Endpoint>,
    pub(super) local: Vec<Endpoint>,
    /// Some node of the cluster could serve this port.
    any: bool,
}

/// Where one kind of traffic comes from, decided for all three sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deliveries {
    pub(super) from_pods: Delivery,
    pub(super) from_host: Delivery,
    pub(super) from_outside: Delivery,
}

/// The policy for traffic from outside. A Service that nothing outside can reach has none.
pub(super) fn external_policy(service: &Service) -> TrafficPolicy {
    let reachable = match service.service_type {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    };
    if reachable {
        service.external_traffic_policy
    } else {
        TrafficPolicy::Cluster
    }
}

impl Endpoints {
    /// Chooses among the candidates: ready ones, or, when there are none, those that still serve while they
    /// terminate; for the cluster's list and the local one each on its own. Hints narrow the cluster's only.
    pub(super) fn choose(candidates: &[Candidate<'_>], zone: Option<&str>) -> Self {
        let topology = Topology::of(candidates, zone);
        let cluster = select(candidates, |candidate| topology.admits(candidate), |_| true);
        let local = select(
            candidates,
            |candidate| candidate.held.is_local,
            |candidate| candidate.held.is_local,
        );
        Self {
            any: !cluster.is_empty(),
            cluster,
            local,
        }
    }

    /// Delivers to a list; nothing in it is refused when the whole cluster has nothing, dropped otherwise.
    fn deliver(&self, endpoints: EndpointList, masquerade: bool) -> Delivery {
        let list = match endpoints {
            EndpointList::Cluster => &self.cluster,
            EndpointList::Local => &self.local,
        };
        match (list.is_empty(), self.any) {
            (false, _) => Delivery::To {
                endpoints,
                masquerade,
            },
            (true, true) => Delivery::Drop,
            (true, false) => Delivery::Reject,
        }
    }
}

/// The endpoints to which flows may live on. A policy or a hint that came later is no reason to cut a flow that
/// is answered. TCP needs no such list: nothing but the two ends ends a connection.
pub(super) fn flow_endpoints(candidates: &[Candidate<'_>], protocol: Protocol) -> Vec<SocketAddr> {
    if protocol == Protocol::Tcp {
        return Vec::new();
    }
    let mut endpoints: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.held.ready || candidate.held.serving)
        .map(|candidate| SocketAddr::new(candidate.ip, candidate.port))
        .collect();
    endpoints.sort_unstable();
    endpoints
}

/// The ready candidates that `admits_ready`, or else the serving terminating ones that `admits_terminating`.
fn select(
    candidates: &[Candidate<'_>],
    admits_ready: impl Fn(&Candidate<'_>) -> bool,
    admits_terminating: impl Fn(&Candidate<'_>) -> bool,
) -> Vec<Endpoint> {
    let ready = candidates
        .iter()
        .filter(|candidate| candidate.held.ready && admits_ready(candidate));
    let ready: Vec<_> = ready.map(Candidate::endpoint).collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates
        .iter()
        .filter(|candidate| candidate.is_serving_terminating() && admits_terminating(candidate))
        .map(Candidate::endpoint)
        .collect()
}

impl Policies {
    /// What becomes of traffic to an address of this kind.
    pub(super) fn deliveries(self, kind: AddressKind, endpoints: &Endpoints) -> Deliveries {
        match kind {
            AddressKind::ClusterIp => self.internal_deliveries(endpoints),
            AddressKind::ExternalIp | AddressKind::LoadBalancerIp | AddressKind::NodePort => {
                self.external_deliveries(endpoints)
            }
        }
    }

    /// A ClusterIP: what is not known to come from a pod is masqueraded, so that the answer comes back
    /// through this node. Without a detector everything could be a pod.
    fn internal_deliveries(self, endpoints: &Endpoints) -> Deliveries {
        let list = match self.internal {
            TrafficPolicy::Cluster => EndpointList::Cluster,
            TrafficPolicy::Local => EndpointList::Local,
        };
        let from_others = endpoints.deliver(list, self.masquerade_all || self.detects_pods);
        Deliveries {
            from_pods: endpoints.deliver(list, self.masquerade_all),
            from_host: from_others,
            from_outside: from_others,
        }
    }

    /// An address that clients outside use. With policy Local they keep their address and get this node's
    /// endpoints; pods and the host, who could reach the pods of other nodes anyway, get all.
    fn external_deliveries(self, endpoints: &Endpoints) -> Deliveries {
        let masqueraded = endpoints.deliver(EndpointList::Cluster, true);
        if self.external == TrafficPolicy::Cluster {
            return Deliveries {
                from_pods: masqueraded,
                from_host: masqueraded,
                from_outside: masqueraded,
            };
        }
        let from_outside = endpoints.deliver(EndpointList::Local, false);
        Deliveries {
            from_pods: if self.detects_pods {
                endpoints.deliver(EndpointList::Cluster, false)
            } else {
                from_outside
            },
            from_host: masqueraded,
            from_outside,
        }
    }
}
