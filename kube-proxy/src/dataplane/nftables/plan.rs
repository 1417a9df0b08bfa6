//! One resolved Service as the elements that carry it. Pure.
//!
//! A view has been decided to the end, so this only translates.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::affinity::{MOST_NUMBERED, PortGroup, numbers};
use super::chain::{Chain, Entitlement, Reach, Sources};
use super::entry::{Action, Backend, Destination, FIRST_LOCAL_SLOT, Frontend, Key, Target, Value, comment};
use super::seats::{Seated, Seats, seat};
use crate::model::object::Protocol;
use crate::model::view::{AddressKind, Delivery, EndpointList, ServiceAddress, ServicePortView, ServiceView};

/// The elements that carry a Service. `groups` are those of its ports with session affinity.
pub(super) fn plan(
    view: &ServiceView,
    node: Node,
    seated: &Seated,
    groups: &[PortGroup],
) -> Vec<(Key, Value)> {
    let name = view.name.to_string();
    let mut entries = Vec::new();
    let cluster_ips = view.cluster_ips.iter();
    entries.extend(cluster_ips.map(|ip| (Key::ClusterIp(*ip), Value::Present)));
    for port in &view.ports {
        let mut planned = Port {
            port,
            knows_pods: node.knows_pods[port.family as usize],
            localhost: node.localhost,
            beside_ipvs: node.beside_ipvs,
            comment: comment(&name, &port.port_name),
            affinity: None,
            cluster: Seats::default(),
            local: Seats::default(),
            entries: &mut entries,
        };
        planned.affinity = planned.affinity(groups);
        planned.cluster = planned.seated(EndpointList::Cluster, seated);
        planned.local = planned.seated(EndpointList::Local, seated);
        for address in &port.addresses {
            planned.address(address);
        }
        planned.hairpins();
    }
    entries
}

/// What the plan has to know about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Pods are told from others, for IPv4 and IPv6.
    pub(super) knows_pods: [bool; 2],
    /// Node ports are served on the loopback address.
    pub(super) localhost: bool,
    /// IPVS picks endpoints of the list that traffic from outside goes to.
    pub(super) beside_ipvs: bool,
}

/// One ServicePort being planned.
struct Port<'a> {
    port: &'a ServicePortView,
    knows_pods: bool,
    localhost: bool,
    beside_ipvs: bool,
    comment: Box<str>,
    affinity: Option<Affinity>,
    cluster: Seats,
    local: Seats,
    entries: &'a mut Vec<(Key, Value)>,
}

/// Session affinity of a ServicePort.
#[derive(Clone, Copy)]
struct Affinity {
    seconds: u32,
    group: u32,
}

impl Port<'_> {
    /// None beyond the number of endpoints that can be told apart.
    fn affinity(&self, groups: &[PortGroup]) -> Option<Affinity> {
        let port = self.port;
        let most = port.cluster_endpoints.len().max(port.local_endpoints.len());
        let seconds = port.affinity.filter(|_| most <= MOST_NUMBERED)?;
        let group = groups.iter().find(|held| held.is_of(port))?.group;
        Some(Affinity { seconds, group })
    }

    fn seated(&self, list: EndpointList, seated: &Seated) -> Seats {
        let endpoints = match list {
            EndpointList::Cluster => &self.port.cluster_endpoints,
            EndpointList::Local => &self.port.local_endpoints,
        };
        let frontends = self.port.addresses.iter().map(|address| self.frontend(address));
        let mut held = frontends.filter_map(|frontend| seated.get(&(frontend, list)));
        let held = held.next();
        let backends = seat(endpoints, held.map(|seats| &*seats.backends));
        let numbers = match self.affinity {
            Some(Affinity { group, .. }) => {
                let none = HashMap::new();
                numbers(list, group, &backends, held.map_or(&none, |seats| &seats.numbers))
            }
            None => HashMap::new(),
        };
        Seats { backends, numbers }
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

    fn list(&self, list: EndpointList) -> &Seats {
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
        let host = self.host_delivery(address);
        let by_source = [pods, host, outside].map(|delivery| self.served(delivery));
        self.refusal(frontend, by_source);
        self.verdicts(frontend, by_source);
        if address.kind == AddressKind::NodePort && self.serves_localhost(by_source) {
            self.entries
                .push((Key::LocalhostNodePort(frontend), Value::Present));
        }
        if let Some(ranges) = &address.source_ranges {
            self.entries.push((Key::Firewall(frontend), Value::Present));
            let range = |range: &IpNet| (Key::SourceRange(frontend, Box::new(*range)), Value::Present);
            self.entries.extend(ranges.iter().map(range));
        }
    }

    /// Beside IPVS a destination is an address of this host, and so the source of what the host sends to it: no
    /// endpoint could answer to that.
    fn host_delivery(&self, address: &ServiceAddress) -> Delivery {
        match address.from_host {
            Delivery::To { endpoints, .. } if self.beside_ipvs && address.ip.is_some() => Delivery::To {
                endpoints,
                masquerade: true,
            },
            delivery => delivery,
        }
    }

    /// The list that IPVS picks from: one for all sources of an address, so that of whom it is for.
    fn picked_by_ipvs(&self, [_, _, outside]: [Delivery; 3]) -> Option<EndpointList> {
        match outside {
            Delivery::To { endpoints, .. } if self.beside_ipvs => Some(endpoints),
            _ => None,
        }
    }

    /// The kernel can give a packet of TCP or UDP another source; for SCTP it does not know the checksum.
    fn serves_localhost(&self, [_, from_host, _]: [Delivery; 3]) -> bool {
        self.localhost && self.port.protocol != Protocol::Sctp && matches!(from_host, Delivery::To { .. })
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
        let ipvs = self.picked_by_ipvs(by_source);
        let reach = match frontend.address {
            Destination::Ip(_) => Reach::Address,
            Destination::Node(_) => Reach::NodePort,
        };
        let only = lists
            .into_iter()
            .find(|list| by_source.iter().all(|delivery| goes_to(*delivery, *list)));
        let affinity = self.affinity.map(|affinity| affinity.seconds);
        let chain = match only {
            Some(_) if ipvs.is_some() => Chain::Ipvs {
                masquerade: masqueraded(by_source),
            },
            Some(list) => Chain::Endpoints {
                reach,
                list,
                masquerade: masqueraded(by_source),
                count: self.count(list),
                affinity,
            },
            None => {
                let [pods, host, outside] = by_source.map(|delivery| self.entitlement(delivery, ipvs));
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
            if used && ipvs != Some(list) {
                self.slots(frontend, list);
            }
        }
    }

    fn entitlement(&self, delivery: Delivery, ipvs: Option<EndpointList>) -> Entitlement {
        match delivery {
            Delivery::To {
                endpoints,
                masquerade,
            } if ipvs == Some(endpoints) => Entitlement::Ipvs { masquerade },
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
        let (first, Seats { backends, numbers }) = match list {
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

/// The elements for the networks out of which ClusterIPs come.
pub(super) fn service_cidrs(cidrs: &[IpNet]) -> Vec<(Key, Value)> {
    cidrs
        .iter()
        .map(|cidr| (Key::ServiceCidr(*cidr), Value::Present))
        .collect()
}
