//! The fields of the Kubernetes API that we use, as they travel. One struct serves protobuf (prost, unknown
//! fields skipped) and JSON or YAML (serde, unknown fields skipped); nil and unset stay `None` where the
//! difference matters. Field numbers are those of upstream's `generated.proto`.
//!
//! Parsing the contents (addresses, ports, policies) is [`convert`](super::convert)'s.

mod core;
mod discovery;
mod meta;
mod networking;
mod pod;
#[cfg(test)]
mod tests;

pub use self::core::{
    ClientIpConfig, LoadBalancerIngress, LoadBalancerStatus, Node, NodeAddress, NodeSpec, NodeStatus,
    Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinityConfig, Taint,
};
pub use discovery::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
pub use meta::{
    Bookmark, BookmarkMeta, IntOrString, ListMeta, ObjectMeta, Pair, RawExtension, Status, StatusCause,
    StatusDetails, Time, Unknown, WatchEvent, value_of,
};
pub use networking::{ServiceCidr, ServiceCidrSpec};
pub use pod::{
    Container, ContainerPort, EndpointAddress, EndpointSubset, Endpoints, Pod, PodCondition, PodIp, PodSpec,
    PodStatus,
};

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default: Go writes it for nil slices and maps, and people write it in manifests.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
