//! core/v1: Service, Endpoints and Namespace; Node and Pod in their own files.

mod node;
mod pod;
mod service;

use serde::Deserialize;

use super::meta::{Condition, ObjectMeta, Time};

pub(super) use node::Node;
pub(super) use pod::Pod;
pub(super) use service::Service;

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ObjectReference {
    #[prost(string, required, tag = "1")]
    pub(super) kind: String,
    #[prost(string, required, tag = "2")]
    pub(super) namespace: String,
    #[prost(string, required, tag = "3")]
    pub(super) name: String,
    #[prost(string, required, tag = "4")]
    pub(super) uid: String,
    #[prost(string, required, tag = "5")]
    pub(super) api_version: String,
    #[prost(string, required, tag = "6")]
    pub(super) resource_version: String,
    #[prost(string, required, tag = "7")]
    pub(super) field_path: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoints {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ObjectMeta,
    #[prost(message, repeated, tag = "2")]
    pub(super) subsets: Vec<EndpointSubset>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSubset {
    #[prost(message, repeated, tag = "1")]
    pub(super) addresses: Vec<EndpointAddress>,
    #[prost(message, repeated, tag = "2")]
    pub(super) not_ready_addresses: Vec<EndpointAddress>,
    #[prost(message, repeated, tag = "3")]
    pub(super) ports: Vec<EndpointPort>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointAddress {
    #[prost(string, required, tag = "1")]
    pub(super) ip: String,
    #[prost(message, optional, tag = "2")]
    pub(super) target_ref: Option<ObjectReference>,
    #[prost(string, required, tag = "3")]
    pub(super) hostname: String,
    #[prost(string, optional, tag = "4")]
    pub(super) node_name: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointPort {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(int32, required, tag = "2")]
    pub(super) port: i32,
    #[prost(string, required, tag = "3")]
    pub(super) protocol: String,
    #[prost(string, optional, tag = "4")]
    pub(super) app_protocol: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Namespace {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(super) spec: NamespaceSpec,
    #[prost(message, required, tag = "3")]
    pub(super) status: NamespaceStatus,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NamespaceSpec {
    #[prost(string, repeated, tag = "1")]
    pub(super) finalizers: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NamespaceStatus {
    #[prost(string, required, tag = "1")]
    pub(super) phase: String,
}
