//! `k8s.io/api/discovery/v1`: EndpointSlice.

use serde::Deserialize;

use super::ObjectMeta;
use super::null_as_default;

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
    /// IPv4, IPv6 or FQDN.
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "null_as_default")]
    pub address_type: String,
    /// The backends.
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that each backend has.
    #[prost(message, repeated, tag = "3")]
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<EndpointPort>,
}

/// One backend.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Its addresses, of which the first counts.
    #[prost(string, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[prost(message, optional, tag = "2")]
    pub conditions: Option<EndpointConditions>,
    /// Name of its node.
    #[prost(string, optional, tag = "6")]
    pub node_name: Option<String>,
    /// For whom it is meant.
    #[prost(message, optional, tag = "8")]
    pub hints: Option<EndpointHints>,
}

/// `conditions` of a backend.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointConditions {
    /// It takes new connections.
    #[prost(bool, optional, tag = "1")]
    pub ready: Option<bool>,
    /// It answers, terminating or not.
    #[prost(bool, optional, tag = "2")]
    pub serving: Option<bool>,
    /// It is about to end.
    #[prost(bool, optional, tag = "3")]
    pub terminating: Option<bool>,
}

/// `hints` of a backend.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHints {
    /// Zones that should use it.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub for_zones: Vec<ForZone>,
    /// Nodes that should use it.
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "null_as_default")]
    pub for_nodes: Vec<ForNode>,
}

/// A zone in `hints`.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ForZone {
    /// Name of the zone.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// A node in `hints`.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ForNode {
    /// Name of the node.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// One of the `ports` of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the Service port that it stands for.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// TCP, UDP or SCTP; unset means TCP.
    #[prost(string, optional, tag = "2")]
    pub protocol: Option<String>,
    /// The port on the backend.
    #[prost(int32, optional, tag = "3")]
    pub port: Option<i32>,
}
