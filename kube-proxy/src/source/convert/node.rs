//! Node.

use std::net::IpAddr;

use super::{Converted, Interner, LABEL_ZONE, Report, parse_cidr, parse_ip};
use crate::model::object::Node;
use crate::source::wire;

/// Converts a Node.
pub fn node(node: &wire::Node, interner: &mut Interner) -> Converted<Node> {
    let mut report = Report::new("Node", node.metadata.as_ref());
    let Some((_, name)) = report.name() else {
        return report.finish(None);
    };
    let mut pod_cidrs = Vec::new();
    let spec = node.spec.as_ref();
    for (i, cidr) in spec.iter().flat_map(|spec| &spec.pod_cidrs).enumerate() {
        match parse_cidr(cidr) {
            Some(cidr) => pod_cidrs.push(cidr),
            None => report.add(
                format_args!("spec.podCIDRs[{i}]"),
                cidr,
                "is not a CIDR; it is left out",
            ),
        }
    }
    let meta = node.metadata.as_ref();
    let zone = meta
        .and_then(|meta| wire::value_of(&meta.labels, LABEL_ZONE))
        .filter(|zone| !zone.is_empty());
    let object = Node {
        name: name.into(),
        zone: zone.map(|zone| interner.intern(zone)),
        addresses: addresses(node.status.as_ref(), &mut report),
        pod_cidrs,
        deleting: meta
            .and_then(|meta| meta.deletion_timestamp)
            .and_then(|time| time.seconds)
            .is_some(),
        taints: spec
            .iter()
            .flat_map(|spec| &spec.taints)
            .map(|taint| interner.intern(&taint.key))
            .collect(),
    };
    report.finish(Some(object))
}

/// InternalIPs, then ExternalIPs.
fn addresses(status: Option<&wire::NodeStatus>, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for wanted in ["InternalIP", "ExternalIP"] {
        let all = status.iter().flat_map(|status| &status.addresses).enumerate();
        for (i, address) in all.filter(|(_, address)| address.address_type == wanted) {
            match parse_ip(&address.address) {
                Some(ip) => found.push(ip),
                None => report.add(
                    format_args!("status.addresses[{i}].address"),
                    &address.address,
                    "is not an IP address; it is left out",
                ),
            }
        }
    }
    found
}
