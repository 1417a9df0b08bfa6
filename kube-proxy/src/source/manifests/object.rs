//! What a manifest may hold, and by what it is known.

use std::sync::Arc;

use crate::model::object::{EndpointSlice, Node, ObjectName, ServiceCidr};
use crate::source::wire;

/// A kind that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Node,
    Pod,
    ServiceCidr,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ServiceCidr => f.write_str("ServiceCIDR"),
            _ => std::fmt::Debug::fmt(self, f),
        }
    }
}

/// Kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object of a manifest. What still needs others to be complete is kept as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Service(Box<wire::Service>),
    EndpointSlice(Box<EndpointSlice>),
    Endpoints(Box<wire::Endpoints>),
    Node(Box<Node>),
    Pod(Box<wire::Pod>),
    ServiceCidr(Box<ServiceCidr>),
}

/// What a class of documents is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It counts.
    Ours(Kind),
    /// A list; of these, unless an item says otherwise.
    List(Option<Kind>),
    /// A kind of which a cluster would make Pods. Here nobody does.
    Workload,
    /// A kind that counts, in a version that no API server gives any more.
    Outdated(&'static str),
    /// Something else.
    Other,
}

/// The class of a document.
pub(super) fn class(api_version: &str, kind: &str) -> Class {
    let list_of = |kind| Class::List(Some(kind));
    match (api_version, kind) {
        ("v1", "Service") => Class::Ours(Kind::Service),
        ("v1", "Endpoints") => Class::Ours(Kind::Endpoints),
        ("v1", "Node") => Class::Ours(Kind::Node),
        ("v1", "Pod") => Class::Ours(Kind::Pod),
        ("discovery.k8s.io/v1", "EndpointSlice") => Class::Ours(Kind::EndpointSlice),
        ("networking.k8s.io/v1", "ServiceCIDR") => Class::Ours(Kind::ServiceCidr),
        ("v1", "List") => Class::List(None),
        ("v1", "ServiceList") => list_of(Kind::Service),
        ("v1", "EndpointsList") => list_of(Kind::Endpoints),
        ("v1", "NodeList") => list_of(Kind::Node),
        ("v1", "PodList") => list_of(Kind::Pod),
        ("discovery.k8s.io/v1", "EndpointSliceList") => list_of(Kind::EndpointSlice),
        ("networking.k8s.io/v1", "ServiceCIDRList") => list_of(Kind::ServiceCidr),
        (_, "EndpointSlice" | "EndpointSliceList") => Class::Outdated("discovery.k8s.io/v1"),
        (_, "ServiceCIDR" | "ServiceCIDRList") => Class::Outdated("networking.k8s.io/v1"),
        (
            _,
            "Deployment"
            | "ReplicaSet"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "CronJob"
            | "ReplicationController",
        ) => Class::Workload,
        _ => Class::Other,
    }
}

/// The name of an object as its metadata gives it; the namespace is `default` unless it says another.
pub(super) fn object_name(kind: Kind, namespace: &str, name: &str) -> ObjectName {
    let namespace: Arc<str> = match (kind, namespace) {
        (Kind::Node | Kind::ServiceCidr, _) => "".into(),
        (_, "") => "default".into(),
        (_, namespace) => namespace.into(),
    };
    ObjectName::new(namespace, name)
}
