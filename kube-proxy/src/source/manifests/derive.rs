//! Makes the EndpointSlices that a cluster's controllers would make: from the Pods that a Service selects, and
//! from Endpoints. Names of made slices hold a `/`, which no object of a manifest can have.

use std::collections::BTreeMap;

use crate::model::object::{Family, ObjectName};
use crate::source::convert::{LABEL_SERVICE_NAME, parse_ip};
use crate::source::wire;

/// The slices of a Service's Pods and what the operator may want to know of Pods that are not among them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Derived {
    pub(super) slices: Vec<wire::EndpointSlice>,
    pub(super) hints: Vec<String>,
}

/// Whether a Pod has all the labels that a Service selects; a Service without a selector selects nothing.
pub(super) fn selects(service: &wire::Service, pod: &wire::Pod) -> bool {
    let selector = service
        .spec
        .as_ref()
        .map(|spec| spec.selector.as_slice())
        .unwrap_or_default();
    let labels = pod
        .metadata
        .as_ref()
        .map(|meta| meta.labels.as_slice())
        .unwrap_or_default();
    !selector.is_empty()
        && selector
            .iter()
            .all(|pair| wire::value_of(labels, &pair.key) == Some(pair.value.as_str()))
}

/// The slices of the Pods that a Service selects: one for each family and each set of port numbers.
pub(super) fn of_pods<'a>(
    name: &ObjectName,
    service: &wire::Service,
    pods: impl Iterator<Item = (&'a ObjectName, &'a wire::Pod)>,
) -> Derived {
    let Some(spec) = &service.spec else {
        return Derived::default();
    };
    let mut derived = Derived::default();
    let mut groups: BTreeMap<(Family, String), wire::EndpointSlice> = BTreeMap::new();
    for (pod_name, pod) in pods.filter(|(_, pod)| selects(service, pod)) {
        let status = pod.status.clone().unwrap_or_default();
        if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            continue;
        }
        let ips = pod_ips(&status);
        if ips.is_empty() {
            derived.hints.push(format!(
                "Pod {pod_name} is selected by Service {name}, but has no address: without a kubelet nobody \
                 gives it one; set status.podIP"
            ));
        }
        let (ports, missing) = pod_ports(spec, pod);
        derived.hints.extend(missing.into_iter().map(|port| {
            format!("Pod {pod_name} is selected by Service {name}, but has no port named {port:?}")
        }));
        for family in families(spec) {
            let Some((ip, _)) = ips.iter().find(|(_, of)| *of == family) else {
                continue;
            };
            let numbers = ports.iter().map(|port| port.port.unwrap_or(0).to_string());
            let numbers = numbers.collect::<Vec<_>>().join(",");
            let slice = groups
                .entry((family, numbers))
                .or_insert_with_key(|(family, numbers)| {
                    slice(name, &format!("pods/{family}/{numbers}"), *family, ports.clone())
                });
            slice.endpoints.push(endpoint(ip.clone(), spec, pod, &status));
        }
    }
    derived.slices = groups.into_values().collect();
    derived
}

fn slice(
    service: &ObjectName,
    suffix: &str,
    family: Family,
    ports: Vec<wire::EndpointPort>,
) -> wire::EndpointSlice {
    wire::EndpointSlice {
        metadata: Some(wire::ObjectMeta {
            namespace: service.namespace.to_string(),
            name: format!("{}/{suffix}", service.name),
            labels: vec![wire::Pair {
                key: LABEL_SERVICE_NAME.to_owned(),
                value: service.name.to_string(),
            }],
            ..Default::default()
        }),
        address_type: family.to_string(),
        endpoints: Vec::new(),
        ports,
    }
}

/// A Pod's addresses with their families.
fn pod_ips(status: &wire::PodStatus) -> Vec<(String, Family)> {
    let all = status.pod_ips.iter().map(|ip| &ip.ip);
    let mut ips: Vec<_> = all
        .chain([&status.pod_ip])
        .filter_map(|ip| Some((ip.clone(), Family::of(parse_ip(ip)?))))
        .collect();
    ips.dedup();
    ips
}

/// The families of a Service, as its clusterIPs have them.
fn families(spec: &wire::ServiceSpec) -> Vec<Family> {
    let ips = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
    let mut families: Vec<Family> = ips.filter_map(|ip| parse_ip(ip)).map(Family::of).collect();
    families.sort_unstable();
    families.dedup();
    families
}

/// The numbers of a Service's ports on a Pod, and the names that the Pod does not have.
fn pod_ports(spec: &wire::ServiceSpec, pod: &wire::Pod) -> (Vec<wire::EndpointPort>, Vec<String>) {
    let mut ports = Vec::new();
    let mut missing = Vec::new();
    for port in &spec.ports {
        let number = match &port.target_port {
            Some(target) if target.kind == 1 && !target.str_val.is_empty() => {
                match named_port(pod, &target.str_val, &port.protocol) {
                    Some(number) => number,
                    None => {
                        missing.push(target.str_val.clone());
                        continue;
                    }
                }
            }
            Some(target) if target.kind == 0 && target.int_val != 0 => target.int_val,
            _ => port.port,
        };
        ports.push(wire::EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(number),
        });
    }
    (ports, missing)
}

/// The number of a named port: of the containers, else of those init containers that go on beside them.
fn named_port(pod: &wire::Pod, name: &str, protocol: &str) -> Option<i32> {
    let or_tcp = |protocol: &str| match protocol {
        "" => "TCP".to_owned(),
        protocol => protocol.to_owned(),
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports);
    ports
        .find(|port| port.name == name && or_tcp(&port.protocol) == or_tcp(protocol))
        .map(|port| port.container_port)
}

fn endpoint(
    ip: String,
    spec: &wire::ServiceSpec,
    pod: &wire::Pod,
    status: &wire::PodStatus,
) -> wire::Endpoint {
    let serving = is_ready(status);
    let terminating = pod
        .metadata
        .as_ref()
        .is_some_and(|meta| meta.deletion_timestamp.is_some());
    wire::Endpoint {
        addresses: vec![ip],
        conditions: Some(wire::EndpointConditions {
            ready: Some(spec.publish_not_ready_addresses || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        hints: None,
    }
}

/// The condition Ready. Who writes a Pod by hand and gives it an address means one that runs, so a status
/// without any condition counts as ready; a kubelet always reports conditions.
fn is_ready(status: &wire::PodStatus) -> bool {
    if status.conditions.is_empty() {
        return matches!(status.phase.as_str(), "" | "Running");
    }
    status
        .conditions
        .iter()
        .any(|condition| condition.condition_type == "Ready" && condition.status == "True")
}

/// The slices of an Endpoints object: one for each subset and family.
pub(super) fn of_endpoints(name: &ObjectName, endpoints: &wire::Endpoints) -> Vec<wire::EndpointSlice> {
    let mut slices = Vec::new();
    for (index, subset) in endpoints.subsets.iter().enumerate() {
        for family in Family::ALL {
            let mut mirror = slice(
                name,
                &format!("endpoints/{index}/{family}"),
                family,
                subset.ports.clone(),
            );
            for port in &mut mirror.ports {
                // An unnamed port has an empty name in a slice.
                port.name.get_or_insert_default();
            }
            for (addresses, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
                let mut of_family = addresses.iter().filter(|address| {
                    parse_ip(&address.ip).map_or(family == Family::V4, |ip| Family::of(ip) == family)
                });
                mirror
                    .endpoints
                    .extend(of_family.by_ref().map(|address| wire::Endpoint {
                        addresses: vec![address.ip.clone()],
                        conditions: Some(wire::EndpointConditions {
                            ready: Some(ready),
                            ..Default::default()
                        }),
                        node_name: address.node_name.clone(),
                        hints: None,
                    }));
            }
            if !mirror.endpoints.is_empty() {
                slices.push(mirror);
            }
        }
    }
    slices
}
