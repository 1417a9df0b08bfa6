//! What is watched: exactly upstream's objects and selectors, in the form of a URL.

use std::fmt::Write as _;

use crate::model::change::Kind;

/// One of the four kinds of object, as the API server knows it.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// Plural name: in logs, metrics and RBAC rules.
    pub(super) plural: &'static str,
    /// API group; empty for the core group.
    pub(super) group: &'static str,
    /// What the proxy does not do without it; `None` when it cannot do without it.
    pub(super) without: Option<&'static str>,
    path: &'static str,
    selectors: String,
}

impl Resource {
    /// Services of all namespaces, except those of other proxies and headless ones.
    pub(super) fn services() -> Self {
        let proxy_name = encode("!service.kubernetes.io/service-proxy-name");
        let not_headless = encode("spec.clusterIP!=None");
        Self {
            kind: Kind::Service,
            plural: "services",
            group: "",
            without: None,
            path: "/api/v1/services",
            selectors: format!("labelSelector={proxy_name}&fieldSelector={not_headless}"),
        }
    }

    /// EndpointSlices of all namespaces, except those of headless Services.
    pub(super) fn endpoint_slices() -> Self {
        Self {
            kind: Kind::EndpointSlice,
            plural: "endpointslices",
            group: "discovery.k8s.io",
            without: None,
            path: "/apis/discovery.k8s.io/v1/endpointslices",
            selectors: format!("labelSelector={}", encode("!service.kubernetes.io/headless")),
        }
    }

    /// One Node.
    pub(super) fn node(name: &str) -> Self {
        Self {
            kind: Kind::Node,
            plural: "nodes",
            group: "",
            without: None,
            path: "/api/v1/nodes",
            selectors: format!("fieldSelector={}", encode(&format!("metadata.name={name}"))),
        }
    }

    /// All ServiceCIDRs.
    pub(super) fn service_cidrs() -> Self {
        Self {
            kind: Kind::ServiceCidr,
            plural: "servicecidrs",
            group: "networking.k8s.io",
            without: Some(
                "packets to ClusterIPs that no Service has are not dropped (Kubernetes serves ServiceCIDRs since 1.33)",
            ),
            path: "/apis/networking.k8s.io/v1/servicecidrs",
            selectors: String::new(),
        }
    }

    /// Path and query of a request for this resource.
    pub(super) fn url(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = format!("{}?{}", self.path, self.selectors);
        for (name, value) in parameters {
            let separator = if url.ends_with('?') { "" } else { "&" };
            // Writing to a String does not fail.
            let _ = write!(url, "{separator}{name}={}", encode(value));
        }
        url
    }
}

/// Percent-encodes everything that could mean something in a query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selectors_are_those_of_upstream() {
        let watch = [("watch", "true")];
        assert_eq!(
            Resource::services().url(&watch),
            "/api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name\
             &fieldSelector=spec.clusterIP%21%3DNone&watch=true"
        );
        assert_eq!(
            Resource::endpoint_slices().url(&[]),
            "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless"
        );
        assert_eq!(
            Resource::node("node-1").url(&[("continue", "a+b=")]),
            "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1&continue=a%2Bb%3D"
        );
        assert_eq!(
            Resource::service_cidrs().url(&[("watch", "true"), ("resourceVersion", "1")]),
            "/apis/networking.k8s.io/v1/servicecidrs?watch=true&resourceVersion=1"
        );
    }
}
