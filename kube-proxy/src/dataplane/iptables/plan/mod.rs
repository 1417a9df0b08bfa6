//! One resolved Service as chains and rules. Pure.
//!
//! A view has been decided to the end, so this only translates. Here is what leads to a Service from chains that all share;
//! `chains` has what its own chains hold.

mod chains;
mod line;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use self::line::Line;
use super::counters::Counter;
use super::entry::{Key, Shared, Value};
use super::name::{Kind, PortName, protocol};
use crate::dataplane::LocalTraffic;
use crate::model::object::Family;
use crate::model::view::{AddressKind, Delivery, EndpointList, ServiceAddress, ServicePortView, ServiceView};

/// What the plan has to know about the node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// How pods are told from others, for IPv4 and IPv6.
    pub(super) local_traffic: [LocalTraffic; 2],
    /// Node ports are served at 127.0.0.0/8.
    pub(super) localhost: bool,
}

/// The chains and rules that carry a Service. In a family that is `terse`, rules that are there once for each endpoint have no
/// comment.
pub(super) fn plan(view: &ServiceView, node: &Node, terse: [bool; 2]) -> Vec<(Key, Value)> {
    let mut entries = Vec::new();
    for port in &*one_a_name(&view.ports) {
        let planned = Port {
            port,
            name: PortName::new(&view.name, &port.port_name, port.protocol),
            node,
            terse: terse[port.family as usize],
        };
        planned.entries(&mut entries);
    }
    if let Some(health_check) = &view.health_check {
        let port = health_check.port;
        for (family, endpoints) in Family::ALL.into_iter().zip(health_check.local_endpoints) {
            let first = view.ports.iter().find(|port| port.family == family);
            if let (Some(_), Some(first)) = (endpoints, first) {
                let name = PortName::new(&view.name, &first.port_name, first.protocol);
                let line = Line::new()
                    .and("-p tcp")
                    .comment(&format!("{name} health check node port"))
                    .and(&format!("-m tcp --dport {port}"))
                    .to("ACCEPT");
                entries.push(shared(family, Shared::HealthCheckPorts, line));
            }
        }
    }
    entries
}

/// Chains are called after the name and protocol of a port, so ports that share both share their chains. No API server
/// lets a Service have such ports; a manifest may.
fn one_a_name(ports: &[ServicePortView]) -> Cow<'_, [ServicePortView]> {
    let named = |port: &ServicePortView| (port.family, port.protocol, port.port_name.clone());
    let names: BTreeSet<_> = ports.iter().map(named).collect();
    if names.len() == ports.len() {
        return Cow::Borrowed(ports);
    }
    let mut merged: Vec<ServicePortView> = Vec::with_capacity(names.len());
    for port in ports {
        let Some(first) = merged.iter_mut().find(|first| named(first) == named(port)) else {
            merged.push(port.clone());
            continue;
        };
        first.addresses.extend(port.addresses.iter().cloned());
        // The same endpoints, or none where no address of the port leads to them.
        for (list, other) in [
            (&mut first.cluster_endpoints, &port.cluster_endpoints),
            (&mut first.local_endpoints, &port.local_endpoints),
        ] {
            if list.is_empty() {
                list.clone_from(other);
            }
        }
    }
    Cow::Owned(merged)
}

fn shared(family: Family, chain: Shared, rules: String) -> (Key, Value) {
    (Key::Rules(family, chain, rules.into()), Arc::from(""))
}

/// One ServicePort being planned.
struct Port<'a> {
    port: &'a ServicePortView,
    name: PortName,
    node: &'a Node,
    terse: bool,
}

impl Port<'_> {
    fn entries(&self, entries: &mut Vec<(Key, Value)>) {
        let port = self.port;
        for address in &port.addresses {
            self.address(address, entries);
        }
        for list in [EndpointList::Cluster, EndpointList::Local] {
            if port.addresses.iter().any(|address| address.delivers_to(list)) {
                entries.push(self.chain(self.list_chain(list), self.balancing(list)));
            }
        }
        if let Some(external) = self.external() {
            let rules = self.external_rules(external);
            entries.push(self.chain(self.name.chain(Kind::External), rules));
            if let Some(rules) = self.firewall_rules() {
                entries.push(self.chain(self.name.chain(Kind::Firewall), rules));
            }
        }
        let reachable = port.cluster_endpoints.iter().chain(&port.local_endpoints);
        for endpoint in reachable.collect::<BTreeSet<_>>() {
            let chain = self.name.endpoint_chain(endpoint.ip, endpoint.port);
            let rules = self.endpoint_rules(endpoint, &chain);
            entries.push(self.chain(chain, rules));
        }
    }

    fn chain(&self, name: String, rules: String) -> (Key, Value) {
        (Key::Chain(self.port.family, name.into()), rules.into())
    }

    fn list_chain(&self, list: EndpointList) -> String {
        self.name.chain(match list {
            EndpointList::Cluster => Kind::Service,
            EndpointList::Local => Kind::Local,
        })
    }

    /// By source: pods, where they are known, the host, others.
    fn deliveries(&self, address: &ServiceAddress) -> [Delivery; 3] {
        let pods = match self.pods() {
            Some(_) => address.from_pods,
            None => address.from_outside,
        };
        [pods, address.from_host, address.from_outside]
    }

    /// The deliveries of external addresses, which all are alike, if any of them leads to an endpoint.
    fn external(&self) -> Option<[Delivery; 3]> {
        let external = |address: &&ServiceAddress| address.kind != AddressKind::ClusterIp;
        let addresses = self.port.addresses.iter().filter(external);
        addresses
            .map(|address| self.deliveries(address))
            .find(|deliveries| deliveries.iter().any(leads_somewhere))
    }

    /// What selects packets to an address, and behind the comment to a port.
    fn destination(&self, address: &ServiceAddress) -> (String, String) {
        let protocol = protocol(self.port.protocol);
        let selects = match address.ip {
            Some(ip) => format!("-d {} -p {protocol}", IpNet::from(ip)),
            None => format!("-p {protocol}"),
        };
        (selects, format!("-m {protocol} --dport {}", address.port))
    }

    fn address(&self, address: &ServiceAddress, entries: &mut Vec<(Key, Value)>) {
        let family = self.port.family;
        let deliveries = self.deliveries(address);
        let (selects, dport) = self.destination(address);
        let line = |note: &str, target: &str| {
            let comment = format!("{}{note}", self.name);
            Line::new().and(&selects).comment(&comment).and(&dport).to(target)
        };
        if let Some(rules) = self.refusal(address, deliveries) {
            entries.push(rules);
        }
        if !deliveries.iter().any(leads_somewhere) {
            return;
        }
        let external = self.name.chain(Kind::External);
        let (chain, rules) = match address.kind {
            AddressKind::ClusterIp => {
                let list = deliveries
                    .into_iter()
                    .find_map(list)
                    .unwrap_or(EndpointList::Cluster);
                (Shared::Services, line(" cluster IP", &self.list_chain(list)))
            }
            AddressKind::ExternalIp => (Shared::Services, line(" external IP", &external)),
            AddressKind::LoadBalancerIp if address.source_ranges.is_some() => {
                let firewall = self.name.chain(Kind::Firewall);
                let note = format!(" traffic not accepted by {firewall}");
                entries.push(shared(family, Shared::Firewall, line(&note, "DROP")));
                (Shared::Services, line(" loadbalancer IP", &firewall))
            }
            AddressKind::LoadBalancerIp => (Shared::Services, line(" loadbalancer IP", &external)),
            AddressKind::NodePort => {
                let all = line("", &external);
                let rules = match self.counted_localhost(&selects, &dport, &external) {
                    Some(counted) => format!("{counted}\n{all}"),
                    None => all,
                };
                (Shared::NodePorts, rules)
            }
        };
        entries.push(shared(family, chain, rules));
    }

    /// A node port at the loopback address leads where it leads elsewhere; only a counter tells. It is left out
    /// when the rules are written, where there is no such counter.
    fn counted_localhost(&self, selects: &str, dport: &str, external: &str) -> Option<String> {
        let node = self.node;
        (node.localhost && self.port.family == Family::V4).then(|| {
            Line::new()
                .and("-d 127.0.0.0/8")
                .and(selects)
                .comment(&self.name.to_string())
                .and(dport)
                .and(&Counter::LocalhostAccepted.rule_match())
                .to(external)
        })
    }

    /// The rule of the filter table for packets that no endpoint took. Sources are not told apart there.
    fn refusal(&self, address: &ServiceAddress, deliveries: [Delivery; 3]) -> Option<(Key, Value)> {
        let (note, target) = if deliveries.contains(&Delivery::Drop) {
            (" has no local endpoints", "DROP".to_owned())
        } else if deliveries.contains(&Delivery::Reject) {
            let with = match self.port.family {
                Family::V4 => "icmp-port-unreachable",
                Family::V6 => "icmp6-port-unreachable",
            };
            (" has no endpoints", format!("REJECT --reject-with {with}"))
        } else {
            return None;
        };
        let (selects, dport) = self.destination(address);
        let mut line = Line::new().and(&selects).comment(&format!("{}{note}", self.name));
        if address.kind == AddressKind::NodePort {
            line = line.and("-m addrtype --dst-type LOCAL");
        }
        let chain = match address.kind {
            AddressKind::ClusterIp => Shared::ClusterIpsWithoutEndpoint,
            _ => Shared::ExternalWithoutEndpoint,
        };
        Some(shared(self.port.family, chain, line.and(&dport).to(&target)))
    }

    /// How pods are recognised: what comes before the option, and the option.
    fn pods(&self) -> Option<String> {
        let family = self.port.family;
        match &self.node.local_traffic[family as usize] {
            LocalTraffic::Cidr(net) if Family::of(net.addr()) == family => {
                Some(format!("-s {}", net.trunc()))
            }
            LocalTraffic::Interface(name) => Some(format!("-i {name}")),
            LocalTraffic::InterfacePrefix(prefix) => Some(format!("-i {prefix}+")),
            LocalTraffic::Unknown | LocalTraffic::Cidr(_) => None,
        }
    }
}

fn leads_somewhere(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::To { .. })
}

fn list(delivery: Delivery) -> Option<EndpointList> {
    match delivery {
        Delivery::To { endpoints, .. } => Some(endpoints),
        Delivery::Reject | Delivery::Drop => None,
    }
}
