//! networking.k8s.io/v1.

use serde::Deserialize;

use super::meta::{Condition, ObjectMeta};

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceCidr {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(super) spec: ServiceCidrSpec,
    #[prost(message, required, tag = "3")]
    pub(super) status: ServiceCidrStatus,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceCidrSpec {
    #[prost(string, repeated, tag = "1")]
    pub(super) cidrs: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceCidrStatus {
    #[prost(message, repeated, tag = "1")]
    pub(super) conditions: Vec<Condition>,
}
