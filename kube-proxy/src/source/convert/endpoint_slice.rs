//! EndpointSlice.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use super::{
    ANNOTATION_IPVS_WEIGHT, ANNOTATION_LAST_CHANGE_TRIGGER, Converted, Interner, LABEL_SERVICE_NAME, Report,
    parse_ip,
};
use crate::model::object::{EndpointSlice, Family, Hints, ObjectName, SliceEndpoint, SlicePort};
use crate::source::wire;

/// Converts an EndpointSlice. One of address type FQDN gives no object, and no problem either.
pub fn endpoint_slice(slice: &wire::EndpointSlice, interner: &mut Interner) -> Converted<EndpointSlice> {
    let mut report = Report::new("EndpointSlice", slice.metadata.as_ref());
    let Some((namespace, name)) = report.name() else {
        return report.finish(None);
    };
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return report.finish(None),
        other => {
            report.add(
                format_args!("addressType"),
                other,
                "is not IPv4, IPv6 or FQDN; the slice is ignored",
            );
            return report.finish(None);
        }
    };
    let service = slice
        .metadata
        .as_ref()
        .and_then(|meta| wire::value_of(&meta.labels, LABEL_SERVICE_NAME))
        .filter(|service| !service.is_empty());
    let object = EndpointSlice {
        // Names of slices do not repeat.
        name: ObjectName::new(interner.intern(namespace), name),
        service: service.map(|service| interner.intern(service)),
        family,
        last_change_trigger: last_change_trigger(slice),
        ports: ports(&slice.ports, &mut report, interner),
        endpoints: endpoints(&slice.endpoints, family, &mut report, interner),
        ipvs_weight: ipvs_weight(slice.metadata.as_ref(), &mut report),
    };
    report.finish(Some(object))
}

/// Whoever makes slices by hand may write anything there; then there is nothing to measure.
fn last_change_trigger(slice: &wire::EndpointSlice) -> Option<SystemTime> {
    let annotations = &slice.metadata.as_ref()?.annotations;
    let time = wire::value_of(annotations, ANNOTATION_LAST_CHANGE_TRIGGER)?;
    Some(time.parse::<Timestamp>().ok()?.into())
}

fn ipvs_weight(meta: Option<&wire::ObjectMeta>, report: &mut Report<'_>) -> Option<u16> {
    let text = wire::value_of(&meta?.annotations, ANNOTATION_IPVS_WEIGHT)?;
    let weight = text.parse().ok();
    if weight.is_none() {
        report.add(
            format_args!("metadata.annotations[{ANNOTATION_IPVS_WEIGHT}]"),
            text,
            "is not a weight of IPVS (0-65535); the usual one is used",
        );
    }
    weight
}

fn ports(ports: &[wire::EndpointPort], report: &mut Report<'_>, interner: &mut Interner) -> Vec<SlicePort> {
    let mut usable = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let (Some(name), Some(number)) = (&port.name, port.port.filter(|number| *number != 0)) else {
            continue;
        };
        let number = report.port(format_args!("ports[{i}].port"), number);
        let protocol = port.protocol.as_deref().unwrap_or_default();
        let protocol = report.protocol(format_args!("ports[{i}].protocol"), protocol);
        if let (Some(port), Some(protocol)) = (number, protocol) {
            usable.push(SlicePort {
                name: interner.intern(name),
                protocol,
                port,
            });
        }
    }
    usable
}

fn endpoints(
    endpoints: &[wire::Endpoint],
    family: Family,
    report: &mut Report<'_>,
    interner: &mut Interner,
) -> Vec<SliceEndpoint> {
    let mut usable: Vec<SliceEndpoint> = Vec::with_capacity(endpoints.len());
    for (i, endpoint) in endpoints.iter().enumerate() {
        let Some(address) = endpoint.addresses.first() else {
            report.add(
                format_args!("endpoints[{i}].addresses"),
                "",
                "holds no address; the endpoint is left out",
            );
            continue;
        };
        let Some(ip) = parse_ip(address).filter(|ip| Family::of(*ip) == family) else {
            report.add(
                format_args!("endpoints[{i}].addresses[0]"),
                address,
                format_args!("is not an {family} address; the endpoint is left out"),
            );
            continue;
        };
        let conditions = endpoint.conditions.unwrap_or_default();
        let hints = endpoint.hints.as_ref().and_then(|hints| {
            let hints = convert_hints(hints, interner)?;
            // Neighbours mostly share their hints.
            match usable.last().and_then(|last| last.hints.as_ref()) {
                Some(last) if **last == hints => Some(Arc::clone(last)),
                _ => Some(Arc::new(hints)),
            }
        });
        usable.push(SliceEndpoint {
            ip,
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
            node_name: endpoint.node_name.as_deref().map(|node| interner.intern(node)),
            hints,
        });
    }
    usable
}

fn convert_hints(hints: &wire::EndpointHints, interner: &mut Interner) -> Option<Hints> {
    if hints.for_zones.is_empty() && hints.for_nodes.is_empty() {
        return None;
    }
    let zones = hints.for_zones.iter().map(|zone| interner.intern(&zone.name));
    let zones = zones.collect();
    let nodes = hints.for_nodes.iter().map(|node| interner.intern(&node.name));
    let nodes = nodes.collect();
    Some(Hints { zones, nodes })
}
