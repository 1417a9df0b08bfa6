//! The cluster that is measured: N Services with E endpoints each, shaped like those of a real cluster, and one
//! more Service whose single endpoint moves.
//!
//! | what | addresses |
//! |---|---|
//! | ClusterIPs | 10.96.16.0 + number of the Service |
//! | endpoints | 10.128.0.0/10, one address each, all answered by one pod |
//! | where the moving endpoint moves | 10.192.0.0/11, answered by another pod |

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// The port of every Service.
const SERVICE_PORT: u16 = 80;
/// The port of every endpoint.
pub(super) const TARGET_PORT: u16 = 8080;
/// The addresses of the first pod that answers.
pub(super) const NEAR: &str = "10.128.0.0/10";
/// The addresses of the second pod that answers.
pub(super) const FAR: &str = "10.192.0.0/11";
/// The addresses of the Services.
pub(super) const CLUSTER_IPS: &str = "10.96.0.0/16";
/// As many ClusterIPs as the network has behind the first one that is used.
const MOST_SERVICES: usize = 60_000;
/// As many addresses as the first pod has.
const MOST_ENDPOINTS: usize = 4_000_000;
/// Services of one namespace.
const SERVICES_IN_NAMESPACE: usize = 500;
/// Endpoints of one node, as a node's usual limit of pods allows.
const ENDPOINTS_ON_NODE: usize = 100;
/// The namespace of the Service whose endpoint moves.
const MOVING_NAMESPACE: &str = "load-moving";
const MOVING: &str = "moving";
const MOVING_NEAR: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 8);
const MOVING_FAR: Ipv4Addr = Ipv4Addr::new(10, 192, 0, 8);

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Number of Services.
    pub(super) services: usize,
    /// Endpoints of each.
    pub(super) endpoints: usize,
}

/// An object and where it is created.
#[derive(Debug)]
pub(super) struct Creation {
    /// Path of the collection.
    pub(super) path: String,
    /// The object.
    pub(super) object: Value,
}

/// Where a Service is reached and which endpoints it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// ClusterIP and port.
    pub(super) at: SocketAddr,
    first: u32,
    count: u32,
}

impl Target {
    /// Whether the address is that of an endpoint of the Service.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        let IpAddr::V4(ip) = endpoint.ip() else {
            return false;
        };
        let ip = u32::from(ip);
        endpoint.port() == TARGET_PORT && (self.first..self.first + self.count).contains(&ip)
    }
}

impl Size {
    /// Checks that the address plan has room.
    pub(super) fn check(self) -> Result<Self> {
        let Self { services, endpoints } = self;
        ensure!(
            (1..=MOST_SERVICES).contains(&services),
            "between 1 and {MOST_SERVICES} Services"
        );
        ensure!(
            (1..=1000).contains(&endpoints),
            "between 1 and 1000 endpoints, as one EndpointSlice holds"
        );
        ensure!(
            services * endpoints <= MOST_ENDPOINTS,
            "at most {MOST_ENDPOINTS} endpoints in all"
        );
        Ok(self)
    }

    /// What must be there before anything else: namespaces and the node.
    pub(super) fn ground(self, node: &str, node_ip: IpAddr) -> Vec<Creation> {
        let numbered = (0..self.services).step_by(SERVICES_IN_NAMESPACE).map(namespace);
        let namespaces = numbered
            .chain([MOVING_NAMESPACE.to_owned()])
            .map(|name| Creation {
                path: "/api/v1/namespaces".to_owned(),
                object: json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            });
        namespaces.chain([node_object(node, node_ip)]).collect()
    }

    /// All Services and EndpointSlices.
    pub(super) fn load(self) -> impl Iterator<Item = Creation> {
        let numbered = (0..self.services).flat_map(move |number| [service(number), self.slice(number)]);
        numbered.chain(Self::moving())
    }

    /// The Service whose endpoint moves, and its EndpointSlice at its first place.
    pub(super) fn moving() -> [Creation; 2] {
        let service = service_object(MOVING_NAMESPACE, MOVING, moving_target().at.ip());
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{MOVING_NAMESPACE}/endpointslices");
        [
            Creation {
                path: format!("/api/v1/namespaces/{MOVING_NAMESPACE}/services"),
                object: service,
            },
            Creation {
                path,
                object: moving_slice(0),
            },
        ]
    }

    /// A Service by its number, the last of the order of names being the last number.
    pub(super) fn target(self, number: usize) -> Target {
        Target {
            at: SocketAddr::new(cluster_ip(number), SERVICE_PORT),
            first: u32::from(near(number * self.endpoints)),
            count: index(self.endpoints),
        }
    }

    fn slice(self, number: usize) -> Creation {
        let (namespace, name) = (namespace(number), name(number));
        let endpoints: Vec<Value> = (0..self.endpoints)
            .map(|e| endpoint(&namespace, &name, number * self.endpoints + e))
            .collect();
        Creation {
            path: format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
            object: slice_object(&namespace, &name, &endpoints),
        }
    }
}

/// Where the moving Service is reached; it has no endpoint of [`Size::target`]'s.
pub(super) fn moving_target() -> Target {
    let at = SocketAddr::new(Ipv4Addr::new(10, 96, 8, 8).into(), SERVICE_PORT);
    Target {
        at,
        first: u32::from(MOVING_NEAR),
        count: 1,
    }
}

/// The moving Service's EndpointSlice after so many moves, and the path at which it is replaced.
pub(super) fn moved_slice(moves: usize) -> (String, Value) {
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{MOVING_NAMESPACE}/endpointslices/{}",
        slice_name(MOVING)
    );
    (path, moving_slice(moves))
}

/// The only endpoint of the moving Service: near after an even number of moves, far after an odd one.
fn moving_slice(moves: usize) -> Value {
    let mut only = endpoint(MOVING_NAMESPACE, MOVING, 0);
    let ip = if moves.is_multiple_of(2) {
        MOVING_NEAR
    } else {
        MOVING_FAR
    };
    only["addresses"] = json!([ip]);
    slice_object(MOVING_NAMESPACE, MOVING, &[only])
}

fn namespace(service: usize) -> String {
    format!("load-{:04}", service / SERVICES_IN_NAMESPACE)
}

fn name(service: usize) -> String {
    format!("app-{service:05}")
}

fn slice_name(service: &str) -> String {
    format!("{service}-x7k2p")
}

fn cluster_ip(service: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 16, 0)) + index(service)).into()
}

/// The address of an endpoint by its number in the whole cluster.
fn near(endpoint: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 1, 0)) + index(endpoint))
}

/// [`Size::check`] bounds all numbers far below this.
fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn service(number: usize) -> Creation {
    let (namespace, name) = (namespace(number), name(number));
    Creation {
        path: format!("/api/v1/namespaces/{namespace}/services"),
        object: service_object(&namespace, &name, cluster_ip(number)),
    }
}

fn service_object(namespace: &str, name: &str, cluster_ip: IpAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace},
        },
        "spec": {
            "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": TARGET_PORT, "protocol": "TCP"}],
        },
    })
}

/// As the cluster's EndpointSlice controller writes it.
fn slice_object(namespace: &str, service: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(service), "namespace": namespace, "generateName": format!("{service}-"),
            "labels": {
                "app.kubernetes.io/name": service,
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service, "controller": true,
                "blockOwnerDeletion": true, "uid": "7b0c3a52-91d4-4c1e-8f3a-5d2e6f708192",
            }],
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": TARGET_PORT, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn endpoint(namespace: &str, service: &str, number: usize) -> Value {
    let zone = ["zone-a", "zone-b", "zone-c"][number % 3];
    json!({
        "addresses": [near(number)],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": format!("node-{}", 1 + number / ENDPOINTS_ON_NODE),
        "zone": zone,
        "targetRef": {
            "kind": "Pod", "namespace": namespace, "name": format!("{service}-6d4cf56db6-{number:05x}"),
            "uid": format!("1f9d6a3e-52b7-4d0c-9e1a-{number:012x}"),
        },
    })
}

fn node_object(name: &str, ip: IpAddr) -> Creation {
    Creation {
        path: "/api/v1/nodes".to_owned(),
        object: json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "zone-a",
            }},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]},
        }),
    }
}
