//! `k8s.io/api/core/v1`: Service and Node.

use serde::Deserialize;

use super::meta::pairs;
use super::null_as_default;
use super::{IntOrString, ObjectMeta, Pair};

/// v1 Service.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// Metadata.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
    /// What is wanted.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<ServiceSpec>,
    /// What a load balancer gave.
    #[prost(message, optional, tag = "3")]
    pub status: Option<ServiceStatus>,
}

/// `spec` of a Service.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Ports.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<ServicePort>,
    /// Labels of the Pods behind it. Only the manifests source matches Pods itself.
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "pairs")]
    pub selector: Vec<Pair>,
    /// The first virtual IP; "None" for headless Services.
    #[prost(string, tag = "3")]
    #[serde(rename = "clusterIP", deserialize_with = "null_as_default")]
    pub cluster_ip: String,
    /// The virtual IPs, one a family.
    #[prost(string, repeated, tag = "18")]
    #[serde(rename = "clusterIPs", deserialize_with = "null_as_default")]
    pub cluster_ips: Vec<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    #[prost(string, tag = "4")]
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub service_type: String,
    /// Addresses that the user routes to the nodes.
    #[prost(string, repeated, tag = "5")]
    #[serde(rename = "externalIPs", deserialize_with = "null_as_default")]
    pub external_ips: Vec<String>,
    /// None or ClientIP.
    #[prost(string, tag = "7")]
    #[serde(deserialize_with = "null_as_default")]
    pub session_affinity: String,
    /// CIDRs that may use the load balancer's addresses.
    #[prost(string, repeated, tag = "9")]
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Cluster or Local.
    #[prost(string, tag = "11")]
    #[serde(deserialize_with = "null_as_default")]
    pub external_traffic_policy: String,
    /// Port of the health check; 0 for none.
    #[prost(int32, tag = "12")]
    #[serde(deserialize_with = "null_as_default")]
    pub health_check_node_port: i32,
    /// Pods that are not ready count as ready. The EndpointSlice controller applies it, and the manifests
    /// source.
    #[prost(bool, tag = "13")]
    #[serde(deserialize_with = "null_as_default")]
    pub publish_not_ready_addresses: bool,
    /// Timeout of the affinity.
    #[prost(message, optional, tag = "14")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// IPv4 and IPv6, parallel to `cluster_ips`.
    #[prost(string, repeated, tag = "19")]
    #[serde(deserialize_with = "null_as_default")]
    pub ip_families: Vec<String>,
    /// SingleStack, PreferDualStack or RequireDualStack. Only the manifests source allocates addresses itself.
    #[prost(string, optional, tag = "17")]
    pub ip_family_policy: Option<String>,
    /// Whether a load balancer's Service gets node ports. Only the manifests source allocates them itself.
    #[prost(bool, optional, tag = "20")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Cluster or Local.
    #[prost(string, optional, tag = "22")]
    pub internal_traffic_policy: Option<String>,
}

/// One of the `ports` of a Service.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; empty when it is the only port.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// TCP, UDP or SCTP; empty means TCP.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// The Service's port.
    #[prost(int32, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub port: i32,
    /// The Pod's port. Only the manifests source uses it: slices carry the outcome.
    #[prost(message, optional, tag = "4")]
    pub target_port: Option<IntOrString>,
    /// The nodes' port; 0 for none.
    #[prost(int32, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub node_port: i32,
}

/// `sessionAffinityConfig` of a Service.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// For affinity ClientIP.
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// `clientIP` of a `sessionAffinityConfig`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// Seconds that a client is remembered.
    #[prost(int32, optional, tag = "1")]
    pub timeout_seconds: Option<i32>,
}

/// `status` of a Service.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The load balancer's addresses.
    #[prost(message, optional, tag = "1")]
    pub load_balancer: Option<LoadBalancerStatus>,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    /// The addresses.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One address of a load balancer.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// The address; empty for load balancers that have a host name only.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// VIP or Proxy.
    #[prost(string, optional, tag = "3")]
    pub ip_mode: Option<String>,
}

/// v1 Node.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    /// Metadata.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
    /// What is wanted.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<NodeSpec>,
    /// What the kubelet reports.
    #[prost(message, optional, tag = "3")]
    pub status: Option<NodeStatus>,
}

/// `spec` of a Node.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// The networks of its Pods.
    #[prost(string, repeated, tag = "7")]
    #[serde(rename = "podCIDRs", deserialize_with = "null_as_default")]
    pub pod_cidrs: Vec<String>,
    /// Taints.
    #[prost(message, repeated, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub taints: Vec<Taint>,
}

/// One taint of a Node.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    /// Key.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub key: String,
}

/// `status` of a Node.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its addresses.
    #[prost(message, repeated, tag = "5")]
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<NodeAddress>,
}

/// One address of a Node.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname, …
    #[prost(string, tag = "1")]
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The address or name.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
}
