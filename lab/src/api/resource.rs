//! Which resources the API serves, and what is particular to each. Adding one is a line in each table here
//! and a message in `proto/`.

use serde_json::{Value, json};

/// A resource that the API serves. All are of version `v1` of their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// core/v1 `services`.
    Services,
    /// core/v1 `endpoints`.
    Endpoints,
    /// core/v1 `nodes`.
    Nodes,
    /// core/v1 `pods`.
    Pods,
    /// core/v1 `namespaces`.
    Namespaces,
    /// discovery.k8s.io/v1 `endpointslices`.
    EndpointSlices,
    /// networking.k8s.io/v1 `servicecidrs`.
    ServiceCidrs,
    /// events.k8s.io/v1 `events`.
    Events,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Services,
        Self::Endpoints,
        Self::Nodes,
        Self::Pods,
        Self::Namespaces,
        Self::EndpointSlices,
        Self::ServiceCidrs,
        Self::Events,
    ];

    /// The API group; empty for core.
    pub fn group(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            Self::ServiceCidrs => "networking.k8s.io",
            Self::Events => "events.k8s.io",
            _ => "",
        }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io/v1",
            Self::ServiceCidrs => "networking.k8s.io/v1",
            Self::Events => "events.k8s.io/v1",
            _ => "v1",
        }
    }

    /// The name in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Endpoints => "endpoints",
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
            Self::EndpointSlices => "endpointslices",
            Self::ServiceCidrs => "servicecidrs",
            Self::Events => "events",
        }
    }

    /// `kind` of its objects.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::Endpoints => "Endpoints",
            Self::Nodes => "Node",
            Self::Pods => "Pod",
            Self::Namespaces => "Namespace",
            Self::EndpointSlices => "EndpointSlice",
            Self::ServiceCidrs => "ServiceCIDR",
            Self::Events => "Event",
        }
    }

    /// What kubectl takes for short.
    pub(crate) fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::Services => &["svc"],
            Self::Endpoints => &["ep"],
            Self::Nodes => &["no"],
            Self::Pods => &["po"],
            Self::Namespaces => &["ns"],
            Self::Events => &["ev"],
            Self::EndpointSlices | Self::ServiceCidrs => &[],
        }
    }

    /// Whether its objects live in a namespace.
    pub fn namespaced(self) -> bool {
        !matches!(self, Self::Nodes | Self::Namespaces | Self::ServiceCidrs)
    }

    /// Whether `status` is written only through the subresource of that name.
    pub(crate) fn has_status(self) -> bool {
        !matches!(self, Self::Endpoints | Self::EndpointSlices | Self::Events)
    }

    /// Whether a PUT creates what is not there.
    pub(crate) fn created_by_put(self) -> bool {
        matches!(self, Self::Services | Self::Endpoints)
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn of_kind(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|r| r.api_version() == api_version && r.kind() == kind)
    }

    /// The resource of a path's group and plural name.
    pub(crate) fn of_path(group: &str, plural: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|r| r.group() == group && r.plural() == plural)
    }

    /// Where the collection is served: of one namespace, or of all.
    pub fn path(self, namespace: Option<&str>) -> String {
        let root = match self.group() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural()),
            None => format!("{root}/{}", self.plural()),
        }
    }

    /// What field selectors may name, beyond `metadata.name` and `metadata.namespace`: the field's path, and
    /// the text that stands for it when it is unset.
    pub(crate) fn selectable(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Services => &[("spec.clusterIP", ""), ("spec.type", "")],
            Self::Nodes => &[("spec.unschedulable", "false")],
            Self::Pods => &[
                ("spec.nodeName", ""),
                ("spec.restartPolicy", ""),
                ("spec.schedulerName", ""),
                ("spec.serviceAccountName", ""),
                ("spec.hostNetwork", "false"),
                ("status.phase", ""),
                ("status.podIP", ""),
                ("status.nominatedNodeName", ""),
            ],
            Self::Namespaces => &[("status.phase", "")],
            Self::Events => &[("reason", ""), ("type", ""), ("reportingController", "")],
            Self::Endpoints | Self::EndpointSlices | Self::ServiceCidrs => &[],
        }
    }

    /// An object without content, as it stands in bookmarks: the fields that a Go server cannot leave out.
    pub(crate) fn empty(self) -> Value {
        match self {
            Self::Services => json!({"spec": {}, "status": {"loadBalancer": {}}}),
            Self::Nodes => json!({"spec": {}, "status": {
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
                "nodeInfo": {
                    "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                    "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
                    "operatingSystem": "", "architecture": "",
                },
            }}),
            Self::Pods => json!({"spec": {"containers": null}, "status": {}}),
            Self::Namespaces | Self::ServiceCidrs => json!({"spec": {}, "status": {}}),
            Self::EndpointSlices => json!({"addressType": "", "endpoints": null, "ports": null}),
            Self::Events => json!({"eventTime": null}),
            Self::Endpoints => json!({}),
        }
    }
}

impl std::fmt::Display for Resource {
    /// The plural name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.plural())
    }
}
