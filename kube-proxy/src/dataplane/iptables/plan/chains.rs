//! What the chains of one ServicePort hold: masquerading, affinity, the choice of an endpoint, and its DNAT.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Port;
use super::line::Line;
use crate::dataplane::iptables::name::{Kind, protocol};
use crate::model::view::{AddressKind, Delivery, Endpoint, EndpointList, ServiceAddress};

impl Port<'_> {
    /// Masquerading of traffic to the ClusterIP, affinity, and a random endpoint of the list.
    pub(super) fn balancing(&self, list: EndpointList) -> String {
        let port = self.port;
        let mut rules = Vec::new();
        for address in &port.addresses {
            if address.kind == AddressKind::ClusterIp && address.delivers_to(list) {
                rules.extend(self.cluster_ip_masquerade(address));
            }
        }
        let endpoints = match list {
            EndpointList::Cluster => &port.cluster_endpoints,
            EndpointList::Local => &port.local_endpoints,
        };
        let chains: Vec<(String, String)> = endpoints
            .iter()
            .map(|endpoint| {
                let at = std::net::SocketAddr::new(endpoint.ip, endpoint.port);
                let chain = self.name.endpoint_chain(endpoint.ip, endpoint.port);
                (format!("{} -> {at}", self.name), chain)
            })
            .collect();
        if let Some(seconds) = port.affinity {
            rules.extend(chains.iter().map(|(note, chain)| {
                self.per_endpoint(note)
                    .and(&format!(
                        "-m recent --rcheck --seconds {seconds} --reap --name {chain}"
                    ))
                    .to(chain)
            }));
        }
        for (index, (note, chain)) in chains.iter().enumerate() {
            let left = chains.len() - index;
            let line = self.per_endpoint(note);
            rules.push(match left {
                1 => line.to(chain),
                _ => line
                    .and(&format!(
                        "-m statistic --mode random --probability {}",
                        probability(left)
                    ))
                    .to(chain),
            });
        }
        rules.join("\n")
    }

    fn cluster_ip_masquerade(&self, address: &ServiceAddress) -> Option<String> {
        let [pods, _, outside] = self.deliveries(address).map(masquerades);
        let pods_not = match (pods, outside) {
            (_, false) => return None,
            (true, true) => None,
            (false, true) => self.pods(),
        };
        let (selects, dport) = self.destination(address);
        let mut line = Line::new();
        if let Some(pods) = pods_not {
            line = line.and("!").and(&pods);
        }
        let note = format!("{} cluster IP", self.name);
        Some(line.and(&selects).comment(&note).and(&dport).to("KUBE-MARK-MASQ"))
    }

    fn per_endpoint(&self, note: &str) -> Line {
        match self.terse {
            true => Line::new(),
            false => Line::new().comment(note),
        }
    }

    /// What comes for an external address: where it goes to, by where it comes from.
    pub(super) fn external_rules(&self, [pods, host, outside]: [Delivery; 3]) -> String {
        let mut rules = Vec::new();
        let name = &self.name;
        let mut to = |selects: &str, delivery: Delivery, masquerade: &str, route: Option<&str>| {
            let Delivery::To {
                endpoints,
                masquerade: masquerades,
            } = delivery
            else {
                return;
            };
            let line = |note: &str| {
                let note = format!("{note} traffic for {name} external destinations");
                Line::new().comment(&note).and(selects)
            };
            if masquerades {
                rules.push(line(masquerade).to("KUBE-MARK-MASQ"));
            }
            let chain = self.list_chain(endpoints);
            rules.push(match route {
                Some(note) => line(note).to(&chain),
                None => Line::new().to(&chain),
            });
        };
        if pods == outside && host == outside {
            to("", outside, "masquerade", None);
            return rules.join("\n");
        }
        if let Some(from_pods) = self.pods()
            && pods != outside
        {
            to(&from_pods, pods, "masquerade pod", Some("pod"));
        }
        if host != outside {
            to(
                "-m addrtype --src-type LOCAL",
                host,
                "masquerade LOCAL",
                Some("route LOCAL"),
            );
        }
        to("", outside, "masquerade", None);
        rules.join("\n")
    }

    /// Who may use the addresses with source ranges.
    pub(super) fn firewall_rules(&self) -> Option<String> {
        let ranges = self
            .port
            .addresses
            .iter()
            .filter_map(|address| address.source_ranges.as_ref());
        let ranges: BTreeSet<&IpNet> = ranges.flatten().collect();
        if ranges.is_empty() {
            return None;
        }
        let external = self.name.chain(Kind::External);
        let allow = |range: &&IpNet| {
            let note = format!("{} loadbalancer IP", self.name);
            Line::new()
                .and(&format!("-s {range}"))
                .comment(&note)
                .to(&external)
        };
        let mut rules: Vec<String> = ranges.iter().map(allow).collect();
        let note = format!(
            "other traffic to {} will be dropped by KUBE-PROXY-FIREWALL",
            self.name
        );
        rules.push(Line::new().comment(&note).without_target());
        Some(rules.join("\n"))
    }

    pub(super) fn endpoint_rules(&self, endpoint: &Endpoint, chain: &str) -> String {
        let name = self.name.to_string();
        let protocol = protocol(self.port.protocol);
        let itself = Line::new().and(&format!("-s {}", IpNet::from(endpoint.ip)));
        let mut dnat = Line::new().and(&format!("-p {protocol}"));
        let itself = match self.terse {
            true => itself,
            false => {
                dnat = dnat.comment(&name);
                itself.comment(&name)
            }
        };
        if self.port.affinity.is_some() {
            dnat = dnat.and(&format!("-m recent --set --name {chain}"));
        }
        let to = match endpoint.ip {
            IpAddr::V4(ip) => format!("{ip}:{}", endpoint.port),
            IpAddr::V6(ip) => format!("[{ip}]:{}", endpoint.port),
        };
        let dnat = dnat
            .and(&format!("-m {protocol}"))
            .to(&format!("DNAT --to-destination {to}"));
        format!("{}\n{dnat}", itself.to("KUBE-MARK-MASQ"))
    }
}

/// The chance of the first of so many, as upstream writes it: ten decimals.
fn probability(of: usize) -> String {
    let mut text = String::new();
    #[expect(clippy::cast_precision_loss, reason = "a number of endpoints")]
    // Writing to a String does not fail.
    let _ = write!(text, "{:.10}", 1.0 / of as f64);
    text
}

fn masquerades(delivery: Delivery) -> bool {
    matches!(delivery, Delivery::To { masquerade: true, .. })
}
