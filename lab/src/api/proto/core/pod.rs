//! Pod, as far as networking is concerned.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ObjectMeta, Time};

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Pod {
    #[prost(message, required, tag = "1")]
    pub(crate) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(crate) spec: PodSpec,
    #[prost(message, required, tag = "3")]
    pub(crate) status: PodStatus,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    pub(crate) containers: Vec<Container>,
    #[prost(string, required, tag = "3")]
    pub(crate) restart_policy: String,
    #[prost(int64, optional, tag = "4")]
    pub(crate) termination_grace_period_seconds: Option<i64>,
    #[prost(string, required, tag = "6")]
    pub(crate) dns_policy: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) node_selector: BTreeMap<String, String>,
    #[prost(string, required, tag = "8")]
    pub(crate) service_account_name: String,
    #[prost(string, required, tag = "10")]
    pub(crate) node_name: String,
    #[prost(bool, required, tag = "11")]
    pub(crate) host_network: bool,
    #[prost(string, required, tag = "16")]
    pub(crate) hostname: String,
    #[prost(string, required, tag = "17")]
    pub(crate) subdomain: String,
    #[prost(string, required, tag = "19")]
    pub(crate) scheduler_name: String,
    #[prost(message, repeated, tag = "20")]
    pub(crate) init_containers: Vec<Container>,
    #[prost(message, repeated, tag = "28")]
    pub(crate) readiness_gates: Vec<PodReadinessGate>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodReadinessGate {
    #[prost(string, required, tag = "1")]
    pub(crate) condition_type: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    #[prost(string, required, tag = "1")]
    pub(crate) name: String,
    #[prost(string, required, tag = "2")]
    pub(crate) image: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) command: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) args: Vec<String>,
    #[prost(string, required, tag = "5")]
    pub(crate) working_dir: String,
    #[prost(message, repeated, tag = "6")]
    pub(crate) ports: Vec<ContainerPort>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    #[prost(string, required, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, required, tag = "2")]
    pub(crate) host_port: i32,
    #[prost(int32, required, tag = "3")]
    pub(crate) container_port: i32,
    #[prost(string, required, tag = "4")]
    pub(crate) protocol: String,
    #[prost(string, required, tag = "5")]
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    #[prost(string, required, tag = "1")]
    pub(crate) phase: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) conditions: Vec<PodCondition>,
    #[prost(string, required, tag = "3")]
    pub(crate) message: String,
    #[prost(string, required, tag = "4")]
    pub(crate) reason: String,
    #[prost(string, required, tag = "5")]
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
    #[prost(string, required, tag = "6")]
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) start_time: Option<Time>,
    #[prost(string, required, tag = "9")]
    pub(crate) qos_class: String,
    #[prost(message, repeated, tag = "12")]
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Vec<Ip>,
    #[prost(message, repeated, tag = "16")]
    #[serde(rename = "hostIPs")]
    pub(crate) host_ips: Vec<Ip>,
}

/// `PodIP` and `HostIP`.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub(crate) struct Ip {
    #[prost(string, required, tag = "1")]
    pub(crate) ip: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodCondition {
    #[prost(string, required, tag = "1")]
    #[serde(rename = "type")]
    pub(crate) condition_type: String,
    #[prost(string, required, tag = "2")]
    pub(crate) status: String,
    #[prost(message, required, tag = "3")]
    pub(crate) last_probe_time: Time,
    #[prost(message, required, tag = "4")]
    pub(crate) last_transition_time: Time,
    #[prost(string, required, tag = "5")]
    pub(crate) reason: String,
    #[prost(string, required, tag = "6")]
    pub(crate) message: String,
    #[prost(int64, required, tag = "7")]
    pub(crate) observed_generation: i64,
}
