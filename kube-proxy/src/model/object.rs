//! The observed objects: Service, EndpointSlice, Node and ServiceCIDR, reduced to the fields that decide something and
//! parsed into typed values. `source/` makes them; how it treats a field it cannot parse is said there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

/// Namespace and name of an object; orders by namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace; empty for cluster-scoped objects (Node, ServiceCIDR).
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    /// As the Kubernetes API and the metrics write it: `IPv4`, `IPv6`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All three, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IP protocol number (6, 17, 132).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl std::fmt::Display for Protocol {
    /// As the Kubernetes API writes it: `TCP`, `UDP`, `SCTP`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServiceType {
    /// The default.
    #[default]
    ClusterIp,
    /// ClusterIP and a port on every node.
    NodePort,
    /// NodePort (usually) and addresses of a load balancer.
    LoadBalancer,
    /// A DNS alias; never proxied.
    ExternalName,
}

/// `externalTrafficPolicy` and `internalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    /// Any ready endpoint.
    #[default]
    Cluster,
    /// Endpoints of this node only.
    Local,
}

/// `ipMode` of a load-balancer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IpMode {
    /// Traffic arrives with the address as destination: the node must know it. The default when unset.
    #[default]
    Vip,
    /// The load balancer rewrites the destination: the node must not touch the address.
    Proxy,
}

/// One address of `status.loadBalancer.ingress`. Entries with only a hostname do not get here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBalancerIngress {
    /// The address.
    pub ip: IpAddr,
    /// How traffic to it arrives.
    pub ip_mode: IpMode,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Port name; empty when unnamed.
    pub name: Arc<str>,
    /// Protocol; TCP when unset.
    pub protocol: Protocol,
    /// The Service's port, 1–65535.
    pub port: u16,
    /// The node port; 0 when there is none.
    pub node_port: u16,
}

/// A Service as observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since the Unix epoch; `None` when unset (manifests). Settles
    /// conflicts: the oldest Service wins, unset counts as youngest, ties go to the smaller name.
    pub created: Option<i64>,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// `spec.clusterIP` is "None": no virtual IP wanted. A headless Service is never proxied.
    pub headless: bool,
    /// `spec.clusterIP` when it is an address.
    pub cluster_ip: Option<IpAddr>,
    /// `spec.clusterIPs`, parallel to `ip_families`; `None` where an entry is not an address.
    pub cluster_ips: Vec<Option<IpAddr>>,
    /// `spec.ipFamilies`.
    pub ip_families: Vec<Family>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`, unparsable ones left out.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress`, hostname-only entries left out.
    pub load_balancer_ingress: Vec<LoadBalancerIngress>,
    /// `spec.loadBalancerSourceRanges`, trimmed, unparsable ones left out.
    pub source_ranges: Vec<IpNet>,
    /// `sessionAffinity: ClientIP` with its timeout in seconds (10800 when unset); `None` for no affinity.
    pub session_affinity: Option<u32>,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`; 0 when there is none.
    pub health_check_node_port: u16,
    /// The annotation that names a scheduler of IPVS for this Service.
    pub ipvs_scheduler: Option<Arc<str>>,
}

impl Service {
    /// A ClusterIP Service without addresses or ports, to be filled in.
    pub fn new(name: ObjectName) -> Self {
        Self {
            name,
            created: None,
            service_type: ServiceType::ClusterIp,
            headless: false,
            cluster_ip: None,
            cluster_ips: Vec::new(),
            ip_families: Vec::new(),
            ports: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ingress: Vec::new(),
            source_ranges: Vec::new(),
            session_affinity: None,
            external_traffic_policy: TrafficPolicy::Cluster,
            internal_traffic_policy: TrafficPolicy::Cluster,
            health_check_node_port: 0,
            ipvs_scheduler: None,
        }
    }
}

/// One port of an EndpointSlice. Entries with a nil name or a nil or zero port do not get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Port name; matches the Service port's name.
    pub name: Arc<str>,
    /// Protocol; TCP when unset.
    pub protocol: Protocol,
    /// The port on the endpoint, 1–65535.
    pub port: u16,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// `addresses[0]`; endpoints without a parsable address do not get here.
    pub ip: IpAddr,
    /// `conditions.ready`, nil is true.
    pub ready: bool,
    /// `conditions.serving`, nil is true.
    pub serving: bool,
    /// `conditions.terminating`, nil is false.
    pub terminating: bool,
    /// `nodeName`.
    pub node_name: Option<Arc<str>>,
    /// Topology hints; `None` when there are none at all (the usual case, so that it costs a pointer).
    pub hints: Option<Arc<Hints>>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hints {
    /// Names in `forZones`.
    pub zones: Vec<Arc<str>>,
    /// Names in `forNodes`.
    pub nodes: Vec<Arc<str>>,
}

/// An EndpointSlice as observed. Slices of address type FQDN do not get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// Value of the label `kubernetes.io/service-name`, in the slice's namespace; `None` when the label is
    /// missing or empty: such a slice belongs to no Service.
    pub service: Option<Arc<str>>,
    /// `addressType`.
    pub family: Family,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`: when that happened which made it change last.
    /// Nothing here depends on it but a measurement.
    pub last_change_trigger: Option<SystemTime>,
    /// `ports`.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
    /// The weight of its endpoints in IPVS, by an annotation.
    pub ipvs_weight: Option<u16>,
}

/// This node as observed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Value of the label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses` of type InternalIP, then those of type ExternalIP, in order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Keys of `spec.taints`.
    pub taints: Vec<Arc<str>>,
}

/// A ServiceCIDR as observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Name, without namespace.
    pub name: ObjectName,
    /// `spec.cidrs`, unparsable ones left out.
    pub cidrs: Vec<IpNet>,
}
