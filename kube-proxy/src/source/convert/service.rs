//! Service.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{ANNOTATION_IPVS_SCHEDULER, Converted, Interner, Report, parse_cidr, parse_ip};
use crate::model::object::{
    Family, IpMode, LoadBalancerIngress, ObjectName, Service, ServicePort, ServiceType, TrafficPolicy,
};
use crate::source::wire;

/// Seconds that a client is remembered when the Service does not say.
const DEFAULT_AFFINITY_SECONDS: u32 = 10800;
/// The longest that the API allows: a day.
const MAX_AFFINITY_SECONDS: i32 = 86400;

/// The longest name of a scheduler that the kernel takes.
const LONGEST_SCHEDULER: usize = 15;

/// Converts a Service.
pub fn service(service: &wire::Service, interner: &mut Interner) -> Converted<Service> {
    let mut report = Report::new("Service", service.metadata.as_ref());
    let Some((namespace, name)) = report.name() else {
        return report.finish(None);
    };
    let mut object = Service::new(ObjectName::new(interner.intern(namespace), interner.intern(name)));
    object.created = service
        .metadata
        .as_ref()
        .and_then(|meta| meta.creation_timestamp)
        .and_then(|time| time.seconds);
    object.ipvs_scheduler = ipvs_scheduler(service.metadata.as_ref(), &mut report, interner);
    if let Some(spec) = &service.spec {
        object.service_type = service_type(&spec.service_type, &mut report);
        cluster_ips(spec, &mut object, &mut report);
        object.ports = ports(&spec.ports, &mut report, interner);
        object.external_ips = external_ips(&spec.external_ips, &mut report);
        object.source_ranges = source_ranges(&spec.load_balancer_source_ranges, &mut report);
        object.session_affinity = session_affinity(spec, &mut report);
        object.external_traffic_policy = traffic_policy(
            format_args!("spec.externalTrafficPolicy"),
            &spec.external_traffic_policy,
            &mut report,
        );
        object.internal_traffic_policy = traffic_policy(
            format_args!("spec.internalTrafficPolicy"),
            spec.internal_traffic_policy.as_deref().unwrap_or_default(),
            &mut report,
        );
        object.health_check_node_port = report.optional_port(
            format_args!("spec.healthCheckNodePort"),
            spec.health_check_node_port,
        );
    }
    let load_balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    if let Some(load_balancer) = load_balancer {
        object.load_balancer_ingress = ingress(&load_balancer.ingress, &mut report);
    }
    report.finish(Some(object))
}

/// Whether there is such a scheduler the kernel will tell; here only what can be no name is refused.
fn ipvs_scheduler(
    meta: Option<&wire::ObjectMeta>,
    report: &mut Report<'_>,
    interner: &mut Interner,
) -> Option<Arc<str>> {
    let name = wire::value_of(&meta?.annotations, ANNOTATION_IPVS_SCHEDULER)?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > LONGEST_SCHEDULER || !name.chars().all(is_name) {
        report.add(
            format_args!("metadata.annotations[{ANNOTATION_IPVS_SCHEDULER}]"),
            name,
            "is not the name of a scheduler of IPVS; the configured one is used",
        );
        return None;
    }
    Some(interner.intern(name))
}

fn service_type(text: &str, report: &mut Report<'_>) -> ServiceType {
    match text {
        "" | "ClusterIP" => ServiceType::ClusterIp,
        "NodePort" => ServiceType::NodePort,
        "LoadBalancer" => ServiceType::LoadBalancer,
        "ExternalName" => ServiceType::ExternalName,
        other => {
            report.add(
                format_args!("spec.type"),
                other,
                "is not a Service type; ClusterIP is assumed",
            );
            ServiceType::ClusterIp
        }
    }
}

fn traffic_policy(field: std::fmt::Arguments<'_>, text: &str, report: &mut Report<'_>) -> TrafficPolicy {
    match text {
        "" | "Cluster" => TrafficPolicy::Cluster,
        "Local" => TrafficPolicy::Local,
        other => {
            report.add(field, other, "is not Cluster or Local; Cluster is assumed");
            TrafficPolicy::Cluster
        }
    }
}

/// `clusterIP`, `clusterIPs` and `ipFamilies`. The API server completes each from the others; so do we, for
/// manifests that it never saw.
fn cluster_ips(spec: &wire::ServiceSpec, object: &mut Service, report: &mut Report<'_>) {
    object.headless = spec.cluster_ip == "None" || spec.cluster_ips.first().is_some_and(|ip| ip == "None");
    if object.headless {
        return;
    }
    let mut parse = |field: std::fmt::Arguments<'_>, text: &str| {
        let ip = parse_ip(text);
        if ip.is_none() && !text.is_empty() {
            report.add(field, text, "is not an IP address; the Service does without it");
        }
        ip
    };
    object.cluster_ip = parse(format_args!("spec.clusterIP"), &spec.cluster_ip);
    let ips = spec.cluster_ips.iter().enumerate();
    object.cluster_ips = ips
        .map(|(i, text)| parse(format_args!("spec.clusterIPs[{i}]"), text))
        .collect();
    if spec.cluster_ip.is_empty() {
        object.cluster_ip = object.cluster_ips.first().copied().flatten();
    }
    if spec.ip_families.is_empty() {
        object.cluster_ips.retain(Option::is_some);
        object.ip_families = object
            .cluster_ips
            .iter()
            .flatten()
            .map(|ip| Family::of(*ip))
            .collect();
        return;
    }
    for (i, text) in spec.ip_families.iter().enumerate() {
        match text.as_str() {
            "IPv4" => object.ip_families.push(Family::V4),
            "IPv6" => object.ip_families.push(Family::V6),
            other => {
                report.add(
                    format_args!("spec.ipFamilies[{i}]"),
                    other,
                    "is not IPv4 or IPv6; the Service does without its address",
                );
                // The two lists run in parallel.
                let position = object.ip_families.len();
                if position < object.cluster_ips.len() {
                    object.cluster_ips.remove(position);
                }
            }
        }
    }
}

fn ports(ports: &[wire::ServicePort], report: &mut Report<'_>, interner: &mut Interner) -> Vec<ServicePort> {
    let mut usable: Vec<ServicePort> = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let number = report.port(format_args!("spec.ports[{i}].port"), port.port);
        let protocol = report.protocol(format_args!("spec.ports[{i}].protocol"), &port.protocol);
        let (Some(number), Some(protocol)) = (number, protocol) else {
            continue;
        };
        if usable
            .iter()
            .any(|earlier| *earlier.name == *port.name && earlier.protocol == protocol)
        {
            report.add(
                format_args!("spec.ports[{i}].name"),
                &port.name,
                format_args!("is the name of another {protocol} port; this one is left out"),
            );
            continue;
        }
        usable.push(ServicePort {
            name: interner.intern(&port.name),
            protocol,
            port: number,
            node_port: report.optional_port(format_args!("spec.ports[{i}].nodePort"), port.node_port),
        });
    }
    usable
}

fn external_ips(texts: &[String], report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut ips = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match parse_ip(text) {
            Some(ip) => ips.push(ip),
            None if text.trim().is_empty() => {}
            None => report.add(
                format_args!("spec.externalIPs[{i}]"),
                text,
                "is not an IP address; it is left out",
            ),
        }
    }
    ips
}

fn source_ranges(texts: &[String], report: &mut Report<'_>) -> Vec<IpNet> {
    let mut ranges = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match parse_cidr(text.trim()) {
            Some(range) => ranges.push(range),
            None => report.add(
                format_args!("spec.loadBalancerSourceRanges[{i}]"),
                text,
                "is not a CIDR; it is left out",
            ),
        }
    }
    ranges
}

fn session_affinity(spec: &wire::ServiceSpec, report: &mut Report<'_>) -> Option<u32> {
    match spec.session_affinity.as_str() {
        "" | "None" => return None,
        "ClientIP" => {}
        other => {
            report.add(
                format_args!("spec.sessionAffinity"),
                other,
                "is not None or ClientIP; there is no affinity",
            );
            return None;
        }
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip)
        .and_then(|client_ip| client_ip.timeout_seconds);
    match seconds {
        None => Some(DEFAULT_AFFINITY_SECONDS),
        Some(seconds @ 1..=MAX_AFFINITY_SECONDS) => Some(seconds.unsigned_abs()),
        Some(seconds) => {
            report.add(
                format_args!("spec.sessionAffinityConfig.clientIP.timeoutSeconds"),
                seconds,
                format_args!(
                    "is not within 1-{MAX_AFFINITY_SECONDS} seconds; {DEFAULT_AFFINITY_SECONDS} are used"
                ),
            );
            Some(DEFAULT_AFFINITY_SECONDS)
        }
    }
}

fn ingress(entries: &[wire::LoadBalancerIngress], report: &mut Report<'_>) -> Vec<LoadBalancerIngress> {
    let mut usable = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        if entry.ip.is_empty() {
            continue;
        }
        let Some(ip) = parse_ip(&entry.ip) else {
            report.add(
                format_args!("status.loadBalancer.ingress[{i}].ip"),
                &entry.ip,
                "is not an IP address; it is left out",
            );
            continue;
        };
        let ip_mode = match entry.ip_mode.as_deref() {
            None | Some("VIP") => IpMode::Vip,
            Some("Proxy") => IpMode::Proxy,
            Some(other) => {
                report.add(
                    format_args!("status.loadBalancer.ingress[{i}].ipMode"),
                    other,
                    "is not VIP or Proxy; the address is left out",
                );
                continue;
            }
        };
        usable.push(LoadBalancerIngress { ip, ip_mode });
    }
    usable
}
