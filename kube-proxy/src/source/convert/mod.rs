//! From the wire to the model: parses addresses, ports and policies, and reports each field that it cannot
//! parse, by object and field path; a bad entry affects only itself. Also says which objects are for us.
//!
//! What a field means is the model's to decide; what is skipped without a word here is what upstream's
//! kube-proxy skips too (host names of load balancers, slices of type FQDN, ports without a number).

mod endpoint_slice;
mod intern;
mod node;
mod parse;
mod service;
mod service_cidr;
#[cfg(test)]
mod tests;

use std::fmt;

pub use endpoint_slice::endpoint_slice;
pub use intern::Interner;
pub use node::node;
pub use parse::{parse_cidr, parse_ip};
pub use service::service;
pub use service_cidr::service_cidr;

use super::wire;
use crate::model::object::Protocol;

/// Label of Services that another proxy serves; any value counts, the empty one too.
pub const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label of EndpointSlices of headless Services; any value counts.
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
/// Label that names the Service of an EndpointSlice.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// When that happened which made the EndpointSlice change last: a Pod became ready, say.
pub const ANNOTATION_LAST_CHANGE_TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label that names the zone of a Node.
pub const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
/// Names a scheduler of IPVS for a Service, in place of the configured one. Other modes do not read it.
pub const ANNOTATION_IPVS_SCHEDULER: &str = "kube-proxy.kubernetes.io/ipvs-scheduler";

/// The weight of all endpoints of an EndpointSlice in IPVS, 0 for no new connections. Other modes do not read it.
pub const ANNOTATION_IPVS_WEIGHT: &str = "kube-proxy.kubernetes.io/ipvs-weight";

/// Whether a Service is for us: not headless, and not given to another proxy.
pub fn selects_service(service: &wire::Service) -> bool {
    let foreign = service
        .metadata
        .as_ref()
        .is_some_and(|meta| wire::value_of(&meta.labels, LABEL_SERVICE_PROXY_NAME).is_some());
    let headless = service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.cluster_ip == "None");
    !foreign && !headless
}

/// Whether an EndpointSlice is for us: not that of a headless Service.
pub fn selects_endpoint_slice(slice: &wire::EndpointSlice) -> bool {
    slice
        .metadata
        .as_ref()
        .is_none_or(|meta| wire::value_of(&meta.labels, LABEL_HEADLESS).is_none())
}

/// Whether a Node is this one.
pub fn selects_node(node: &wire::Node, node_name: &str) -> bool {
    node.metadata.as_ref().is_some_and(|meta| meta.name == node_name)
}

/// A field that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind, namespace and name: `Service default/web`.
    pub object: String,
    /// Path of the field: `spec.externalIPs[1]`.
    pub field: String,
    /// What it holds.
    pub value: String,
    /// Why that does not do, and what happens instead.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {:?} {}",
            self.object, self.field, self.value, self.why
        )
    }
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object; `None` when it has no name or is of a kind that is never proxied.
    pub object: Option<T>,
    /// What could not be used of it.
    pub problems: Vec<Problem>,
}

/// Collects the problems of one object.
struct Report<'a> {
    kind: &'static str,
    meta: Option<&'a wire::ObjectMeta>,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    fn new(kind: &'static str, meta: Option<&'a wire::ObjectMeta>) -> Self {
        Self {
            kind,
            meta,
            problems: Vec::new(),
        }
    }

    fn add(&mut self, field: fmt::Arguments<'_>, value: impl fmt::Display, why: impl fmt::Display) {
        let object = match self.meta {
            Some(meta) if !meta.namespace.is_empty() => {
                format!("{} {}/{}", self.kind, meta.namespace, meta.name)
            }
            Some(meta) => format!("{} {}", self.kind, meta.name),
            None => format!("{} without metadata", self.kind),
        };
        self.problems.push(Problem {
            object,
            field: field.to_string(),
            value: value.to_string(),
            why: why.to_string(),
        });
    }

    /// Namespace and name; reported and `None` when there is no name. A namespaced object that does not
    /// say its namespace is in `default`, as for every Kubernetes tool.
    fn name(&mut self) -> Option<(&'a str, &'a str)> {
        match self.meta {
            Some(meta) if !meta.name.is_empty() => {
                let namespace = match meta.namespace.as_str() {
                    "" => "default",
                    namespace => namespace,
                };
                Some((namespace, &meta.name))
            }
            _ => {
                self.add(
                    format_args!("metadata.name"),
                    "",
                    "is empty; the object is ignored",
                );
                None
            }
        }
    }

    /// A port that must be there, 1–65535.
    fn port(&mut self, field: fmt::Arguments<'_>, port: i32) -> Option<u16> {
        match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                self.add(field, port, "is not a port (1-65535); the port is left out");
                None
            }
        }
    }

    /// A port that may be 0 for none. Outside the range it counts as none.
    fn optional_port(&mut self, field: fmt::Arguments<'_>, port: i32) -> u16 {
        u16::try_from(port).unwrap_or_else(|_| {
            self.add(field, port, "is not a port (0-65535); none is used");
            0
        })
    }

    /// A protocol; empty means TCP.
    fn protocol(&mut self, field: fmt::Arguments<'_>, protocol: &str) -> Option<Protocol> {
        match protocol {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            other => {
                self.add(field, other, "is not TCP, UDP or SCTP; the port is left out");
                None
            }
        }
    }

    fn finish<T>(self, object: Option<T>) -> Converted<T> {
        Converted {
            object,
            problems: self.problems,
        }
    }
}
