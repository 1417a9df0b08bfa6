//! One resolved Service as the elements that carry it. Pure.
//!
//! A view has been decided to the end, so this only translates.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::chain::{Chain, Entitlement, Reach, Sources};
use super::entry::{Action, Backend, Destination, FIRST_LOCAL_SLOT, Frontend, Key, Target, Value, comment};
use super::seats::{Seated, numbers, seat};
use crate::model::view::{AddressKind, Delivery, EndpointList, ServiceAddress, ServicePortView, ServiceView};

/// The elements that carry a Service. `knows_pods` says, by family, whether pods are told from others.
pub(super) fn plan(view: &ServiceView, knows_pods: [bool; 2], seated: &Seated) -> Vec<(Key, Value)> {
    let name = view.name.to_string();
    let mut entries = Vec::new();
    for port in &view.ports {
        let mut planned = Port {
            port,
            knows_pods: knows_pods[port.family as usize],
            comment: comment(&name, &port.port_name),
            cluster: List::default(),
            local: List::default(),
            entries: &mut entries,
        };
        planned.cluster = planned.seated(EndpointList::Cluster, seated);
        planned.local = planned.seated(EndpointList::Local, seated);
        for address in &port.addresses {
            planned.address(address);
        }
        planned.hairpins();
    }
    entries
}

/// One ServicePort being planned.
struct Port<'a> {
    port: &'a ServicePortView,
    knows_pods: bool,
    comment: Box<str>,
    cluster: List,
    local: List,
    entries: &'a mut Vec<(Key, Value)>,
}

/// One of its endpoint lists.
#[derive(Default)]
struct List {
    /// By slot.
    backends: Vec<Backend>,
    /// Of those that clients stay with.
    numbers: HashMap<Backend, u32>,
}

impl Port<'_> {
    fn seated(&self, list: EndpointList, seated: &Seated) -> List {
        let endpoints = match list {
            EndpointList::Cluster => &self.port.cluster_endpoints,
            EndpointList::Local => &self.port.local_endpoints,
        };
        let frontends = self.port.addresses.iter().map(|address| self.frontend(address));
        let mut held = frontends.filter_map(|frontend| seated.get(&(frontend, list)));
        let backends = seat(endpoints, held.next());
        let numbers = match self.port.affinity {
            Some(_) => numbers(list, &backends),
            None => HashMap::new(),
        };
        List { backends, numbers }
    }

    fn frontend(&self, address: &ServiceAddress) -> Frontend {
        Frontend {
            address: match address.ip {
                Some(ip) => Destination::Ip(ip),
                None => Destination::Node(self.port.family),
            },
            protocol: self.port.protocol,
            port: address.port,
        }
    }

    fn list(&self, list: EndpointList) -> &List {
        match list {
            EndpointList::Cluster => &self.cluster,
            EndpointList::Local => &self.local,
        }
    }

    fn address(&mut self, address: &ServiceAddress) {
        let frontend = self.frontend(address);
        let outside = address.from_outside;
        let pods = if self.knows_pods {
            address.from_pods
        } else {
            outside
        };
        let by_source = [pods, address.from_host, outside].map(|delivery| self.served(delivery));
        self.refusal(frontend, by_source);
        self.verdicts(frontend, by_source);
        if address.kind == AddressKind::ClusterIp
            && let Some(ip) = address.ip
        {
            self.entries.push((Key::ClusterIp(ip), Value::Present));
        }
        if let Some(ranges) = &address.source_ranges {
            self.entries.push((Key::Firewall(frontend), Value::Present));
            let range = |range: &IpNet| (Key::SourceRange(frontend, Box::new(*range)), Value::Present);
            self.entries.extend(ranges.iter().map(range));
        }
    }

    /// A delivery to a list without endpoints would be a division by zero: it refuses.
    fn served(&self, delivery: Delivery) -> Delivery {
        match delivery {
            Delivery::To { endpoints, .. } if self.list(endpoints).backends.is_empty() => Delivery::Reject,
            other => other,
        }
    }

    /// What the filter chains do with packets that no endpoint took. Sources are not told apart there: where
    /// one kind is refused and another dropped (which no policy asks for), both are dropped.
    fn refusal(&mut self, frontend: Frontend, by_source: [Delivery; 3]) {
        let target = if by_source.contains(&Delivery::Drop) {
            Target::Drop
        } else if by_source.contains(&Delivery::Reject) {
            Target::Reject
        } else {
            return;
        };
        let verdict = self.verdict(target);
        self.entries.push((Key::NoEndpoint(frontend), verdict));
    }

    fn verdicts(&mut self, frontend: Frontend, by_source: [Delivery; 3]) {
        let lists = [EndpointList::Cluster, EndpointList::Local];
        let used = lists.map(|list| by_source.iter().any(|delivery| goes_to(*delivery, list)));
        if used == [false, false] {
            return;
        }
        let reach = match frontend.address {
            Destination::Ip(_) => Reach::Address,
            Destination::Node(_) => Reach::NodePort,
        };
        let only = lists
            .into_iter()
            .find(|list| by_source.iter().all(|delivery| goes_to(*delivery, *list)));
        let affinity = self.port.affinity;
        let chain = match only {
            Some(list) => Chain::Endpoints {
                reach,
                list,
                masquerade: masqueraded(by_source),
                count: self.count(list),
                affinity,
            },
            None => {
                let [pods, host, outside] = by_source.map(|delivery| self.entitlement(delivery));
                Chain::BySource {
                    reach,
                    pods,
                    host,
                    outside,
                    affinity,
                }
            }
        };
        let verdict = self.verdict(Target::Chain(chain));
        self.entries.push((Key::Service(frontend), verdict));
        for (list, used) in lists.into_iter().zip(used) {
            if used {
                self.slots(frontend, list);
            }
        }
    }

    fn entitlement(&self, delivery: Delivery) -> Entitlement {
        match delivery {
            Delivery::To {
                endpoints,
                masquerade,
            } => Entitlement::To {
                list: endpoints,
                masquerade,
                count: self.count(endpoints),
            },
            Delivery::Reject | Delivery::Drop => Entitlement::Nothing,
        }
    }

    fn slots(&mut self, frontend: Frontend, list: EndpointList) {
        let (first, List { backends, numbers }) = match list {
            EndpointList::Cluster => (0, &self.cluster),
            EndpointList::Local => (FIRST_LOCAL_SLOT, &self.local),
        };
        for (slot, backend) in (first..).zip(backends) {
            let endpoint = Value::Endpoint(*backend);
            if let Some(id) = numbers.get(backend) {
                let slot = (Key::AffinitySlot(frontend, slot), Value::EndpointId(*id));
                self.entries
                    .extend([(Key::AffinityEndpoint(frontend, *id), endpoint), slot]);
            } else {
                self.entries.push((Key::Endpoint(frontend, slot), endpoint));
            }
        }
    }

    fn count(&self, list: EndpointList) -> u32 {
        u32::try_from(self.list(list).backends.len()).unwrap_or(u32::MAX)
    }

    fn verdict(&self, target: Target) -> Value {
        Value::Verdict(Arc::new(Action {
            target,
            comment: self.comment.clone(),
        }))
    }

    fn hairpins(&mut self) {
        let port = self.port;
        for endpoint in port.cluster_endpoints.iter().chain(&port.local_endpoints) {
            if endpoint.is_local {
                let key = Key::Hairpin(Backend::from(endpoint), port.protocol);
                self.entries.push((key, Value::Present));
            }
        }
    }
}

fn goes_to(delivery: Delivery, list: EndpointList) -> bool {
    matches!(delivery, Delivery::To { endpoints, .. } if endpoints == list)
}

fn masqueraded(by_source: [Delivery; 3]) -> Sources {
    let [pods, host, outside] =
        by_source.map(|delivery| matches!(delivery, Delivery::To { masquerade: true, .. }));
    Sources { pods, host, outside }
}

/// The elements for the node addresses that accept node ports.
pub(super) fn node_port_ips(addresses: &[IpAddr]) -> Vec<(Key, Value)> {
    addresses
        .iter()
        .map(|ip| (Key::NodePortIp(*ip), Value::Present))
        .collect()
}
