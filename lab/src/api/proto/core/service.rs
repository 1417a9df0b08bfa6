//! Service.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Condition, ObjectMeta};
use crate::api::proto::meta::IntOrString;

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Service {
    #[prost(message, required, tag = "1")]
    pub(crate) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(crate) spec: ServiceSpec,
    #[prost(message, required, tag = "3")]
    pub(crate) status: ServiceStatus,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    #[prost(message, repeated, tag = "1")]
    pub(crate) ports: Vec<ServicePort>,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) selector: BTreeMap<String, String>,
    #[prost(string, required, tag = "3")]
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    #[prost(string, required, tag = "4")]
    #[serde(rename = "type")]
    pub(crate) service_type: String,
    #[prost(string, repeated, tag = "5")]
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: Vec<String>,
    #[prost(string, required, tag = "7")]
    pub(crate) session_affinity: String,
    #[prost(string, required, tag = "8")]
    #[serde(rename = "loadBalancerIP")]
    pub(crate) load_balancer_ip: String,
    #[prost(string, repeated, tag = "9")]
    pub(crate) load_balancer_source_ranges: Vec<String>,
    #[prost(string, required, tag = "10")]
    pub(crate) external_name: String,
    #[prost(string, required, tag = "11")]
    pub(crate) external_traffic_policy: String,
    #[prost(int32, required, tag = "12")]
    pub(crate) health_check_node_port: i32,
    #[prost(bool, required, tag = "13")]
    pub(crate) publish_not_ready_addresses: bool,
    #[prost(message, optional, tag = "14")]
    pub(crate) session_affinity_config: Option<SessionAffinityConfig>,
    #[prost(string, optional, tag = "17")]
    pub(crate) ip_family_policy: Option<String>,
    #[prost(string, repeated, tag = "18")]
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    #[prost(string, repeated, tag = "19")]
    pub(crate) ip_families: Vec<String>,
    #[prost(bool, optional, tag = "20")]
    pub(crate) allocate_load_balancer_node_ports: Option<bool>,
    #[prost(string, optional, tag = "21")]
    pub(crate) load_balancer_class: Option<String>,
    #[prost(string, optional, tag = "22")]
    pub(crate) internal_traffic_policy: Option<String>,
    #[prost(string, optional, tag = "23")]
    pub(crate) traffic_distribution: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    #[prost(string, required, tag = "1")]
    pub(crate) name: String,
    #[prost(string, required, tag = "2")]
    pub(crate) protocol: String,
    #[prost(int32, required, tag = "3")]
    pub(crate) port: i32,
    #[prost(message, required, tag = "4")]
    pub(crate) target_port: IntOrString,
    #[prost(int32, required, tag = "5")]
    pub(crate) node_port: i32,
    #[prost(string, optional, tag = "6")]
    pub(crate) app_protocol: Option<String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub(crate) struct SessionAffinityConfig {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "clientIP")]
    pub(crate) client_ip: Option<ClientIpConfig>,
}

#[derive(Clone, Copy, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClientIpConfig {
    #[prost(int32, optional, tag = "1")]
    pub(crate) timeout_seconds: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    #[prost(message, required, tag = "1")]
    pub(crate) load_balancer: LoadBalancerStatus,
    #[prost(message, repeated, tag = "2")]
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LoadBalancerStatus {
    #[prost(message, repeated, tag = "1")]
    pub(crate) ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LoadBalancerIngress {
    #[prost(string, required, tag = "1")]
    pub(crate) ip: String,
    #[prost(string, required, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) ip_mode: Option<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) ports: Vec<PortStatus>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PortStatus {
    #[prost(int32, required, tag = "1")]
    pub(crate) port: i32,
    #[prost(string, required, tag = "2")]
    pub(crate) protocol: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) error: Option<String>,
}
