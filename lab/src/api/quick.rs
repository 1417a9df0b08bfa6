//! Services and EndpointSlices of the usual shape, made fast: for tens of thousands of them.

use std::fmt::Write;
use std::net::IpAddr;

use serde_json::json;

use super::Server;
use super::resource::Resource;

/// A ClusterIP Service with one TCP port named `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickService<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// The cluster IP.
    pub cluster_ip: IpAddr,
    /// The port.
    pub port: u16,
    /// The node port; 0: none, and the type is ClusterIP.
    pub node_port: u16,
}

/// An EndpointSlice with one TCP port named `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickSlice<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name of the slice.
    pub name: &'a str,
    /// Name of its Service.
    pub service: &'a str,
    /// The endpoints' addresses, all of one family.
    pub endpoints: &'a [IpAddr],
    /// The endpoints' port.
    pub port: u16,
    /// The node of all endpoints.
    pub node: &'a str,
}

impl QuickSlice<'_> {
    /// Whether the first endpoint is of IPv6.
    fn address_type(&self) -> &'static str {
        let first = self.endpoints.first();
        if first.is_some_and(IpAddr::is_ipv6) {
            "IPv6"
        } else {
            "IPv4"
        }
    }
}

impl Server {
    /// Puts a Service in place, new or not, without any check.
    pub fn put_service(&self, service: &QuickService<'_>) {
        let QuickService {
            namespace,
            name,
            cluster_ip,
            port,
            node_port,
        } = service;
        let family = if cluster_ip.is_ipv6() { "IPv6" } else { "IPv4" };
        let (service_type, policy, node_port) = if *node_port == 0 {
            ("ClusterIP", "", String::new())
        } else {
            let policy = "\"externalTrafficPolicy\":\"Cluster\",";
            ("NodePort", policy, format!("\"nodePort\":{node_port},"))
        };
        let members = format!(
            "\"spec\":{{\"clusterIP\":\"{cluster_ip}\",\"clusterIPs\":[\"{cluster_ip}\"],{policy}\
             \"internalTrafficPolicy\":\"Cluster\",\"ipFamilies\":[\"{family}\"],\
             \"ipFamilyPolicy\":\"SingleStack\",\"ports\":[{{\"name\":\"http\",{node_port}\"port\":{port},\
             \"protocol\":\"TCP\",\"targetPort\":\"http\"}}],\"selector\":{{\"app\":\"{name}\"}},\
             \"sessionAffinity\":\"None\",\"type\":\"{service_type}\"}},\"status\":{{\"loadBalancer\":{{}}}}"
        );
        let metadata = json!({
            "name": name, "namespace": namespace, "labels": {"app": name},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        });
        let fields = vec![cluster_ip.to_string(), service_type.to_owned()];
        let mut cluster = self.state().cluster();
        cluster.put_trusted(Resource::Services, metadata, fields, &members);
    }

    /// Puts an EndpointSlice in place, new or not, without any check.
    pub fn put_slice(&self, slice: &QuickSlice<'_>) {
        let mut members = format!("\"addressType\":\"{}\",\"endpoints\":[", slice.address_type());
        let node = slice.node;
        for (index, address) in slice.endpoints.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(
                members,
                "{comma}{{\"addresses\":[\"{address}\"],\
                 \"conditions\":{{\"ready\":true,\"serving\":true,\"terminating\":false}},\
                 \"nodeName\":\"{node}\",\"targetRef\":{{\"kind\":\"Pod\",\"name\":\"{}-{index}\",\
                 \"namespace\":\"{}\",\"uid\":\"6a3b9c5e-0000-4000-8000-0000{index:08x}\"}}}}",
                slice.service, slice.namespace,
            );
        }
        let _ = write!(
            members,
            "],\"ports\":[{{\"name\":\"http\",\"port\":{},\"protocol\":\"TCP\"}}]",
            slice.port
        );
        let metadata = json!({
            "name": slice.name, "namespace": slice.namespace, "generation": 1,
            "generateName": format!("{}-", slice.service),
            "labels": {
                "kubernetes.io/service-name": slice.service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": slice.service, "controller": true,
                "blockOwnerDeletion": true, "uid": "6a3b9c5e-0000-4000-8000-000000000000",
            }],
        });
        let mut cluster = self.state().cluster();
        cluster.put_trusted(Resource::EndpointSlices, metadata, Vec::new(), &members);
    }

    /// Encodes every object as protobuf now, so that no list waits for it.
    pub fn encode_all(&self) {
        for resource in Resource::ALL {
            let objects: Vec<_> = self
                .state()
                .cluster()
                .store
                .objects(resource)
                .values()
                .cloned()
                .collect();
            for object in objects {
                object.protobuf();
            }
        }
    }
}
