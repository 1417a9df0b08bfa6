//! `k8s.io/api/networking/v1`: ServiceCIDR.

use serde::Deserialize;

use super::ObjectMeta;
use super::null_as_default;

/// networking.k8s.io/v1 ServiceCIDR.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceCidr {
    /// Metadata.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
    /// What is wanted.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<ServiceCidrSpec>,
}

/// `spec` of a ServiceCIDR.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceCidrSpec {
    /// Networks out of which ClusterIPs come, at most one of each family.
    #[prost(string, repeated, tag = "1")]
    #[serde(deserialize_with = "null_as_default")]
    pub cidrs: Vec<String>,
}
