//! `k8s.io/api/core/v1`: Pod and Endpoints. They come only in manifests, so they have no protobuf form.

use serde::Deserialize;

use super::ObjectMeta;
use super::null_as_default;

/// v1 Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// Metadata.
    pub metadata: Option<ObjectMeta>,
    /// What is wanted.
    pub spec: Option<PodSpec>,
    /// What the kubelet reports.
    pub status: Option<PodStatus>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Containers.
    #[serde(deserialize_with = "null_as_default")]
    pub containers: Vec<Container>,
    /// Containers that run before the others; those with `restartPolicy: Always` (sidecars) go on beside them.
    #[serde(deserialize_with = "null_as_default")]
    pub init_containers: Vec<Container>,
    /// Name of its node.
    pub node_name: Option<String>,
}

/// A container of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Ports; a Service's `targetPort` may name one.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<ContainerPort>,
    /// Of an init container: `Always` makes it a sidecar.
    pub restart_policy: Option<String>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Name; may be empty.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Number.
    #[serde(deserialize_with = "null_as_default")]
    pub container_port: i32,
    /// TCP, UDP or SCTP; empty means TCP.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    #[serde(deserialize_with = "null_as_default")]
    pub phase: String,
    /// Conditions, of which `Ready` matters.
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: Vec<PodCondition>,
    /// Its first address.
    #[serde(rename = "podIP", deserialize_with = "null_as_default")]
    pub pod_ip: String,
    /// Its addresses, one a family.
    #[serde(rename = "podIPs", deserialize_with = "null_as_default")]
    pub pod_ips: Vec<PodIp>,
}

/// A condition of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodCondition {
    /// E.g. `Ready`.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "null_as_default")]
    pub status: String,
}

/// An address of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodIp {
    /// The address.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
}

/// v1 Endpoints: the predecessor of EndpointSlices, named like its Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoints {
    /// Metadata.
    pub metadata: Option<ObjectMeta>,
    /// Each subset is the product of its addresses and ports.
    #[serde(deserialize_with = "null_as_default")]
    pub subsets: Vec<EndpointSubset>,
}

/// One of the `subsets` of an Endpoints object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSubset {
    /// Backends that take connections.
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<EndpointAddress>,
    /// Backends that do not.
    #[serde(deserialize_with = "null_as_default")]
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<super::EndpointPort>,
}

/// A backend of an Endpoints object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointAddress {
    /// Its address.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// Name of its node.
    pub node_name: Option<String>,
}
