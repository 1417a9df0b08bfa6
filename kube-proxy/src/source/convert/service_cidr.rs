//! ServiceCIDR.

use super::{Converted, Report, parse_cidr};
use crate::model::object::{ObjectName, ServiceCidr};
use crate::source::wire;

/// Converts a ServiceCIDR.
pub fn service_cidr(object: &wire::ServiceCidr) -> Converted<ServiceCidr> {
    let mut report = Report::new("ServiceCIDR", object.metadata.as_ref());
    let Some((_, name)) = report.name() else {
        return report.finish(None);
    };
    let mut cidrs = Vec::new();
    for (i, cidr) in object.spec.iter().flat_map(|spec| &spec.cidrs).enumerate() {
        match parse_cidr(cidr) {
            Some(cidr) => cidrs.push(cidr),
            None => report.add(
                format_args!("spec.cidrs[{i}]"),
                cidr,
                "is not a CIDR; it is left out",
            ),
        }
    }
    let name = ObjectName::new("", name);
    report.finish(Some(ServiceCidr { name, cidrs }))
}
