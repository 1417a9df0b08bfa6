//! One resolved Service as virtual servers and addresses. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::entry::{Key, Scheduler, Server, Settings, Value, Weight};
use crate::dataplane::nftables::{Backend, Destination, Frontend};
use crate::model::view::{Delivery, EndpointList, ServiceAddress, ServicePortView, ServiceView};

/// The weight of an endpoint of which nothing else is said, as upstream.
pub(super) const USUAL_WEIGHT: Weight = 1;

/// What was planned of a Service before.
pub(super) type Before<'a> = HashMap<Frontend, &'a Server>;

/// What carries a Service: the addresses at which IPVS has to see packets, and a virtual server wherever traffic from
/// outside goes to endpoints. `scheduler` is that of Services that do not want another.
pub(super) fn plan(view: &ServiceView, scheduler: &Scheduler, before: &Before<'_>) -> Vec<(Key, Value)> {
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
            if let Some(endpoints) = endpoints(port, address, before.get(&frontend).copied()) {
                let server = Server {
                    settings: Settings {
                        scheduler: scheduler.clone(),
                        persistence: port.affinity,
                    },
                    endpoints,
                };
                entries.push((Key::Server(frontend), Value::Server(Arc::new(server))));
            }
        }
    }
    entries
}

/// The endpoints of traffic from outside; `None` where there are none. One that is no longer among them keeps its
/// flows, but gets no new ones, while the model says that flows may live on there. Only UDP and SCTP have such.
fn endpoints(
    port: &ServicePortView,
    address: &ServiceAddress,
    before: Option<&Server>,
) -> Option<Vec<(Backend, Weight)>> {
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
    if endpoints.is_empty() {
        return None;
    }
    endpoints.sort_unstable();
    let leaving = before.into_iter().flat_map(|before| &before.endpoints);
    let leaving: Vec<(Backend, Weight)> = leaving
        .map(|(backend, _)| *backend)
        .filter(|backend| {
            let lives_on = port
                .flow_endpoints
                .iter()
                .any(|flow| (flow.ip(), flow.port()) == (backend.ip, backend.port));
            lives_on && !endpoints.iter().any(|(other, _)| other == backend)
        })
        .map(|backend| (backend, 0))
        .collect();
    endpoints.extend(leaving);
    endpoints.sort_unstable();
    Some(endpoints)
}
