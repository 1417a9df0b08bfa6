//! Node.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ObjectMeta, Time};
use crate::api::proto::meta::Quantity;

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Node {
    #[prost(message, required, tag = "1")]
    pub(crate) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(crate) spec: NodeSpec,
    #[prost(message, required, tag = "3")]
    pub(crate) status: NodeStatus,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeSpec {
    #[prost(string, required, tag = "1")]
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: String,
    #[prost(string, required, tag = "2")]
    #[serde(rename = "externalID")]
    pub(crate) external_id: String,
    #[prost(string, required, tag = "3")]
    #[serde(rename = "providerID")]
    pub(crate) provider_id: String,
    #[prost(bool, required, tag = "4")]
    pub(crate) unschedulable: bool,
    #[prost(message, repeated, tag = "5")]
    pub(crate) taints: Vec<Taint>,
    #[prost(string, repeated, tag = "7")]
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Taint {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(string, required, tag = "2")]
    pub(crate) value: String,
    #[prost(string, required, tag = "3")]
    pub(crate) effect: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) time_added: Option<Time>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeStatus {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) capacity: BTreeMap<String, Quantity>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(crate) allocatable: BTreeMap<String, Quantity>,
    #[prost(string, required, tag = "3")]
    pub(crate) phase: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) conditions: Vec<NodeCondition>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) addresses: Vec<NodeAddress>,
    #[prost(message, required, tag = "6")]
    pub(crate) daemon_endpoints: NodeDaemonEndpoints,
    #[prost(message, required, tag = "7")]
    pub(crate) node_info: NodeSystemInfo,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeCondition {
    #[prost(string, required, tag = "1")]
    #[serde(rename = "type")]
    pub(crate) condition_type: String,
    #[prost(string, required, tag = "2")]
    pub(crate) status: String,
    #[prost(message, required, tag = "3")]
    pub(crate) last_heartbeat_time: Time,
    #[prost(message, required, tag = "4")]
    pub(crate) last_transition_time: Time,
    #[prost(string, required, tag = "5")]
    pub(crate) reason: String,
    #[prost(string, required, tag = "6")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeAddress {
    #[prost(string, required, tag = "1")]
    #[serde(rename = "type")]
    pub(crate) address_type: String,
    #[prost(string, required, tag = "2")]
    pub(crate) address: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeDaemonEndpoints {
    #[prost(message, required, tag = "1")]
    pub(crate) kubelet_endpoint: DaemonEndpoint,
}

#[derive(Clone, Copy, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub(crate) struct DaemonEndpoint {
    #[prost(int32, required, tag = "1")]
    #[serde(rename = "Port")]
    pub(crate) port: i32,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeSystemInfo {
    #[prost(string, required, tag = "1")]
    #[serde(rename = "machineID")]
    pub(crate) machine_id: String,
    #[prost(string, required, tag = "2")]
    #[serde(rename = "systemUUID")]
    pub(crate) system_uuid: String,
    #[prost(string, required, tag = "3")]
    #[serde(rename = "bootID")]
    pub(crate) boot_id: String,
    #[prost(string, required, tag = "4")]
    pub(crate) kernel_version: String,
    #[prost(string, required, tag = "5")]
    pub(crate) os_image: String,
    #[prost(string, required, tag = "6")]
    pub(crate) container_runtime_version: String,
    #[prost(string, required, tag = "7")]
    pub(crate) kubelet_version: String,
    #[prost(string, required, tag = "8")]
    pub(crate) kube_proxy_version: String,
    #[prost(string, required, tag = "9")]
    pub(crate) operating_system: String,
    #[prost(string, required, tag = "10")]
    pub(crate) architecture: String,
}
