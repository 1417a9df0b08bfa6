//! One resolved Service as virtual servers and addresses. Pure.

use std::sync::Arc;

use super::entry::{Key, Scheduler, Server, Settings, Value, Weight};
use crate::dataplane::nftables::{Backend, Destination, Frontend};
use crate::model::view::{Delivery, EndpointList, ServiceAddress, ServicePortView, ServiceView};

/// The weight of an endpoint of which nothing else is said, as upstream.
pub(super) const USUAL_WEIGHT: Weight = 1;

/// What carries a Service: the addresses at which IPVS has to see packets, and a virtual server wherever traffic from
/// outside goes to endpoints. `scheduler` is that of Services that do not want another.
pub(super) fn plan(view: &ServiceView, scheduler: &Scheduler) -> Vec<(Key, Value)> {
    let own = view.ipvs_scheduler.clone().map(Scheduler::named);
    let scheduler = own.as_ref().unwrap_or(scheduler);
    let cluster_ips = view.cluster_ips.iter();
    let mut entries: Vec<(Key, Value)> = cluster_ips
        .map(|ip| (Key::Address(*ip), Value::Present))
        .collect();
    for port in &view.ports {
        for address in &port.addresses {
            if let Some(ip) = address.ip {
                entries.push((Key::Address(ip), Value::Present));
            }
            let frontend = Frontend {
                address: address.ip.map_or(Destination::Node(port.family), Destination::Ip),
                protocol: port.protocol,
                port: address.port,
            };
            if let Some(endpoints) = endpoints(port, address) {
                let server = Server {
                    settings: Settings {
                        scheduler: scheduler.clone(),
                        persistence: port.affinity,
                    },
                    keeping: keeping(port, &endpoints),
                    endpoints,
                };
                entries.push((Key::Server(frontend), Value::Server(Arc::new(server))));
            }
        }
    }
    entries
}

/// The endpoints of traffic from outside; `None` where there are none.
fn endpoints(port: &ServicePortView, address: &ServiceAddress) -> Option<Vec<(Backend, Weight)>> {
    let list = match address.from_outside {
        Delivery::To {
            endpoints: EndpointList::Cluster,
            ..
        } => &port.cluster_endpoints,
        Delivery::To {
            endpoints: EndpointList::Local,
            ..
        } => &port.local_endpoints,
        Delivery::Reject | Delivery::Drop => return None,
    };
    let mut endpoints: Vec<(Backend, Weight)> = list
        .iter()
        .map(|endpoint| {
            let weight = endpoint.ipvs_weight.map_or(USUAL_WEIGHT, Weight::from);
            (Backend::from(endpoint), weight)
        })
        .collect();
    endpoints.sort_unstable();
    (!endpoints.is_empty()).then_some(endpoints)
}

/// Where the model says that flows may live on, but new ones do not go. Only UDP and SCTP have such.
fn keeping(port: &ServicePortView, endpoints: &[(Backend, Weight)]) -> Vec<Backend> {
    let flows = port.flow_endpoints.iter();
    let flows = flows.map(|flow| Backend {
        ip: flow.ip(),
        port: flow.port(),
    });
    let mut keeping: Vec<Backend> = flows.filter(|flow| !has(endpoints, flow)).collect();
    keeping.sort_unstable();
    keeping.dedup();
    keeping
}

/// The endpoint is among these, which are sorted.
pub(super) fn has(endpoints: &[(Backend, Weight)], backend: &Backend) -> bool {
    endpoints
        .binary_search_by_key(backend, |(other, _)| *other)
        .is_ok()
}
