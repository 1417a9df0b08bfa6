//! Manifests and what the source says of them. `contents` gives texts to the store, `derive` makes
//! slices, `watching` changes real files under a running source.

mod contents;
mod derive;
mod garbage;
mod service_cidrs;
mod watching;

use std::collections::BTreeMap;

use crate::model::change::{Change, Kind};
use crate::model::object::ObjectName;

/// What a listener knows after some changes, one line an object.
#[derive(Debug, Default)]
struct Listener {
    lines: BTreeMap<(&'static str, ObjectName), String>,
    changes: usize,
}

impl Listener {
    fn take(&mut self, change: Change) {
        self.changes += 1;
        match change {
            Change::Service(service) => {
                let ips: Vec<String> = service
                    .cluster_ips
                    .iter()
                    .flatten()
                    .map(ToString::to_string)
                    .collect();
                let ips = match service.cluster_ip {
                    Some(ip) if ips.is_empty() => ip.to_string(),
                    _ => ips.join("+"),
                };
                let ports = service.ports.iter().map(|port| match port.node_port {
                    0 => format!(" {}/{}", port.port, port.protocol),
                    node_port => format!(" {}/{}@{node_port}", port.port, port.protocol),
                });
                let line = format!("{ips}{}", ports.collect::<String>());
                self.lines.insert(("service", service.name.clone()), line);
            }
            Change::EndpointSlice(slice) => {
                let mut line = slice.service.as_deref().unwrap_or("nobody").to_owned();
                for port in &slice.ports {
                    line += &format!(" {}={}", port.name, port.port);
                }
                for endpoint in &slice.endpoints {
                    line += &format!(" {}{}", endpoint.ip, if endpoint.ready { "" } else { "!" });
                }
                self.lines.insert(("slice", slice.name.clone()), line);
            }
            Change::Node(node) => {
                let name = ObjectName::new("", node.name.clone());
                self.lines
                    .insert(("node", name), format!("{:?} {:?}", node.addresses, node.zone));
            }
            Change::ServiceCidr(object) => {
                let line = format!("{:?}", object.cidrs);
                self.lines.insert(("service cidr", object.name.clone()), line);
            }
            Change::Deleted(kind, name) => {
                let kind = match kind {
                    Kind::Service => "service",
                    Kind::EndpointSlice => "slice",
                    Kind::Node => "node",
                    Kind::ServiceCidr => "service cidr",
                };
                assert!(
                    self.lines.remove(&(kind, name.clone())).is_some(),
                    "{kind} {name} deleted twice"
                );
            }
            Change::ListStart(_) | Change::ListDone(_) | Change::Kept(..) => self.changes -= 1,
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.lines.iter();
        lines
            .map(|((kind, name), line)| format!("{kind} {name}: {line}"))
            .collect()
    }
}
