//! The resolved view: everything that is decided about one Service on this node. A dataplane translates it
//! and decides nothing itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::object::{Family, ObjectName, Protocol};

/// What this node does for one Service. Empty `ports` means: nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service's age, as a [`Ledger`](super::ledger::Ledger) wants it.
    pub created: Option<i64>,
    /// Its ClusterIPs, one a family, whether it has a port there or an older Service has them all: what else is
    /// sent to them is refused.
    pub cluster_ips: Vec<IpAddr>,
    /// One entry per Service port and family that the Service has, in the order of `spec.ports`, IPv4 first.
    pub ports: Vec<ServicePortView>,
    /// Addresses that a port of this Service asks for and an older Service or an earlier port has; they are
    /// not in `ports`.
    pub conflicts: Vec<Conflict>,
    /// The health-check server that this Service wants here.
    pub health_check: Option<HealthCheck>,
    /// The scheduler of IPVS that this Service wants, in that mode.
    pub ipvs_scheduler: Option<Arc<str>>,
}

/// One ServicePort in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortView {
    /// Name of the port; empty when unnamed.
    pub port_name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Family of every address and endpoint below.
    pub family: Family,
    /// Endpoints for traffic that may go anywhere in the cluster: ready ones after topology hints, else
    /// serving terminating ones. Distinct, sorted by the text `ip:port`. Empty when no delivery uses it.
    pub cluster_endpoints: Vec<Endpoint>,
    /// Endpoints of this node: ready ones, else serving terminating ones. Distinct, sorted alike. Empty when
    /// no delivery uses it.
    pub local_endpoints: Vec<Endpoint>,
    /// Endpoints to which flows may live on: all of the cluster that are ready or still serve, whatever
    /// policies and hints say about new ones. Distinct, sorted. Empty for TCP, whose connections end themselves.
    pub flow_endpoints: Vec<SocketAddr>,
    /// Session affinity by client address, for this many seconds.
    pub affinity: Option<u32>,
    /// Where traffic for this port arrives, and what becomes of it.
    pub addresses: Vec<ServiceAddress>,
}

impl ServicePortView {
    /// Traffic inside the cluster may use this node's endpoints only, and there are only others.
    pub fn lacks_internal_endpoints(&self) -> bool {
        self.drops(|kind| kind == AddressKind::ClusterIp)
    }

    /// Traffic from outside may use this node's endpoints only, and there are only others.
    pub fn lacks_external_endpoints(&self) -> bool {
        self.drops(|kind| kind != AddressKind::ClusterIp)
    }

    fn drops(&self, kinds: impl Fn(AddressKind) -> bool) -> bool {
        let addresses = self.addresses.iter();
        addresses
            .filter(|address| kinds(address.kind))
            .any(|address| address.from_outside == Delivery::Drop)
    }
}

/// One backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// It runs on this node.
    pub is_local: bool,
    /// The weight that its slice gives it in IPVS, in that mode.
    pub ipvs_weight: Option<u16>,
}

/// Kind of address under which a ServicePort is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancerIp,
    /// `nodePort` on the node addresses that accept node ports.
    NodePort,
}

/// One destination and what becomes of traffic to it, by where the traffic comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Kind of the destination.
    pub kind: AddressKind,
    /// The destination address; `None` for [`AddressKind::NodePort`], whose addresses are the node's.
    pub ip: Option<IpAddr>,
    /// The destination port.
    pub port: u16,
    /// Only these sources may use the address, everything else is dropped; `None` means anyone. Never an
    /// empty list; disjoint and sorted. Already holds the address itself when the node's own traffic is
    /// allowed.
    pub source_ranges: Option<Vec<IpNet>>,
    /// For pods, as the local-traffic detector knows them. Without a detector nobody is a pod.
    pub from_pods: Delivery,
    /// For processes in this node's own network namespace.
    pub from_host: Delivery,
    /// For everybody else.
    pub from_outside: Delivery,
}

impl ServiceAddress {
    /// Traffic of some source goes to this list.
    pub fn delivers_to(&self, list: EndpointList) -> bool {
        [self.from_pods, self.from_host, self.from_outside]
            .iter()
            .any(|delivery| matches!(delivery, Delivery::To { endpoints, .. } if *endpoints == list))
    }
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Delivery {
    /// To one of the endpoints of the list (never an empty one), uniformly at random, or the remembered one.
    To {
        /// Which list of the ServicePort.
        endpoints: EndpointList,
        /// Replace the source address by the node's. A pod that reaches itself is masqueraded in any case.
        masquerade: bool,
    },
    /// Refused with an ICMP port-unreachable: the Service has no endpoint anywhere.
    Reject,
    /// Dropped silently: endpoints exist, but none that the policy allows here.
    Drop,
}

/// One of the two endpoint lists of a ServicePort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointList {
    /// [`ServicePortView::cluster_endpoints`].
    Cluster,
    /// [`ServicePortView::local_endpoints`].
    Local,
}

/// An address that two Services ask for, or two ports of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The contested address; `None` for a node port.
    pub ip: Option<IpAddr>,
    /// Family of the contested address.
    pub family: Family,
    /// The contested protocol.
    pub protocol: Protocol,
    /// The contested port.
    pub port: u16,
    /// The older Service, which holds it; the Service itself when an earlier port of its own does.
    pub winner: ObjectName,
}

/// `healthCheckNodePort` of a LoadBalancer Service with externalTrafficPolicy Local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port to answer on.
    pub port: u16,
    /// For IPv4 and IPv6, `None` when the Service lacks the family: distinct addresses of local ready
    /// endpoints over all ports; terminating ones do not count.
    pub local_endpoints: [Option<usize>; 2],
}
