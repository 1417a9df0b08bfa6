//! Real packets through the rules on one node: who answers, and whom it sees.

use lab::net::{self, Lab, Topology};
use lab::probe::{self, Outcome, RefusedBy, Request};
use lab::serve::Server;

use super::*;

/// A lab whose first node is proxied.
pub(super) struct Proxied {
    pub(super) lab: Lab,
    _servers: Vec<Server>,
    pub(super) dataplane: Nftables,
}

impl Proxied {
    /// Pods `a` and `b` on node 1, `c` on node 2, all serving port 8080.
    pub(super) fn new() -> Self {
        let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1), ("c", 2)])).unwrap();
        let servers = lab
            .pods()
            .map(|pod| Server::start(pod, &[8080]).unwrap())
            .collect();
        Self {
            lab,
            _servers: servers,
            dataplane: Nftables::new(config()),
        }
    }

    pub(super) fn update(&mut self, view: &ServiceView) {
        self.dataplane.update(&view.name, Some(view));
        let node = self.lab.member("node-1").unwrap().namespace.clone();
        let report = node
            .enter(|| crate::dataplane::commit(&mut self.dataplane))
            .unwrap()
            .unwrap();
        assert_eq!(report.refused, []);
    }

    pub(super) fn ask(&self, from: &str, protocol: probe::Protocol, to: SocketAddr) -> Outcome {
        let from = &self.lab.member(from).unwrap().namespace;
        let timeout = match to.port() {
            DROPPED => Duration::from_millis(200),
            _ => Duration::from_secs(3),
        };
        probe::request(
            from,
            Request {
                protocol,
                to,
                timeout,
            },
        )
        .unwrap()
    }

    pub(super) fn ip(&self, member: &str, family: Family) -> IpAddr {
        self.lab.member(member).unwrap().ip(lab_family(family))
    }

    fn endpoints(&self, pods: &[&str], family: Family) -> Vec<String> {
        let text = |pod: &&str| {
            let local = if *pod == "c" { "" } else { "*" };
            format!("{local}{}", SocketAddr::new(self.ip(pod, family), 8080))
        };
        pods.iter().map(text).collect()
    }
}

/// A port that a test wants dropped, so that the wait is short.
const DROPPED: u16 = 82;

pub(super) fn lab_family(family: Family) -> net::Family {
    match family {
        Family::V4 => net::Family::V4,
        Family::V6 => net::Family::V6,
    }
}

pub(super) fn service_address(
    kind: AddressKind,
    at: impl Into<Option<IpAddr>>,
    port: u16,
    by_source: [Delivery; 3],
) -> ServiceAddress {
    ServiceAddress {
        ip: at.into(),
        ..address(kind, None, port, by_source)
    }
}

/// `protocol` on every port of a family's Service.
pub(super) fn service_port(
    proxied: &Proxied,
    (family, protocol): (Family, Protocol),
    pods: &[&str],
    addresses: &[ServiceAddress],
) -> ServicePortView {
    let endpoints = proxied.endpoints(pods, family);
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    ServicePortView {
        protocol,
        ..port(family, &endpoints, addresses)
    }
}

/// Each family with each protocol, as the model and as the lab has it.
pub(super) fn families_and_protocols() -> impl Iterator<Item = (Family, Protocol, probe::Protocol)> {
    let protocols = [
        (Protocol::Tcp, probe::Protocol::Tcp),
        (Protocol::Udp, probe::Protocol::Udp),
        (Protocol::Sctp, probe::Protocol::Sctp),
    ];
    let both = move |family| protocols.map(|(model, probe)| (family, model, probe));
    Family::ALL.into_iter().flat_map(both)
}

const REFUSED: Outcome = Outcome::Refused(RefusedBy::Icmp);

#[test]
fn a_service_is_reached_from_everywhere_and_its_pods_see_the_right_source() {
    let mut proxied = Proxied::new();
    let virtual_ip = |family| net::address::cluster_ip(1, lab_family(family));
    let external = |family| net::address::external_ip(1, lab_family(family));
    let lb = |family| net::address::load_balancer_ip(1, lab_family(family));
    let ports: Vec<_> = families_and_protocols()
        .map(|(family, protocol, _)| {
            let addresses = [
                service_address(AddressKind::ClusterIp, virtual_ip(family), 80, OFF_CLUSTER),
                service_address(AddressKind::ExternalIp, external(family), 80, EXTERNAL),
                service_address(AddressKind::NodePort, None, 30080, EXTERNAL),
                service_address(AddressKind::LoadBalancerIp, lb(family), 80, EXTERNAL_LOCAL),
            ];
            service_port(&proxied, (family, protocol), &["a"], &addresses)
        })
        .collect();
    proxied.update(&view("web", ports));
    for (family, _, protocol) in families_and_protocols() {
        let node = proxied.ip("node-1", family);
        // Who asks whom, and as whom it is seen; `a` is the only endpoint, so it reaches itself.
        for (from, to, port, seen_as) in [
            ("b", virtual_ip(family), 80, "b"),
            ("a", virtual_ip(family), 80, "node-1"),
            ("node-1", virtual_ip(family), 80, "node-1"),
            ("client", virtual_ip(family), 80, "node-1"),
            ("b", external(family), 80, "node-1"),
            ("client", external(family), 80, "node-1"),
            ("b", node, 30080, "node-1"),
            ("a", node, 30080, "node-1"),
            ("node-1", node, 30080, "node-1"),
            ("client", node, 30080, "node-1"),
            ("b", lb(family), 80, "b"),
            ("node-1", lb(family), 80, "node-1"),
            ("client", lb(family), 80, "client"),
        ] {
            let outcome = proxied.ask(from, protocol, SocketAddr::new(to, port));
            let what = format!("{protocol} from {from} to {to} port {port}: {outcome}");
            let answer = outcome.answer().unwrap_or_else(|| panic!("{what}"));
            assert_eq!(answer.server, "a", "{what}");
            assert_eq!(answer.seen_as(), proxied.ip(seen_as, family), "{what}");
        }
    }
}

#[test]
fn a_service_without_endpoints_refuses_and_so_do_other_ports_of_a_cluster_ip() {
    let mut proxied = Proxied::new();
    let virtual_ip = |family| net::address::cluster_ip(1, lab_family(family));
    let lb = |family| net::address::load_balancer_ip(1, lab_family(family));
    let with = |by_source, family, port| {
        [
            service_address(AddressKind::ClusterIp, virtual_ip(family), port, by_source),
            service_address(AddressKind::LoadBalancerIp, lb(family), port, by_source),
            service_address(AddressKind::NodePort, None, 30000 + port, by_source),
        ]
    };
    let ports: Vec<_> = families_and_protocols()
        .flat_map(|(family, protocol, _)| {
            [([Delivery::Reject; 3], 80), ([Delivery::Drop; 3], DROPPED)].map(|(by_source, port)| {
                service_port(&proxied, (family, protocol), &[], &with(by_source, family, port))
            })
        })
        .collect();
    proxied.update(&view("web", ports));
    for (family, _, protocol) in families_and_protocols() {
        for from in ["b", "node-1", "client"] {
            let ask = |to, port| proxied.ask(from, protocol, SocketAddr::new(to, port));
            let what = format!("{protocol} over {family} from {from}");
            let node = proxied.ip("node-1", family);
            assert_eq!(ask(virtual_ip(family), 80), REFUSED, "{what}");
            assert_eq!(ask(virtual_ip(family), DROPPED), Outcome::Timeout, "{what}");
            assert_eq!(ask(virtual_ip(family), 81), REFUSED, "{what}");
            assert_eq!(ask(lb(family), 80), REFUSED, "{what}");
            assert_eq!(ask(lb(family), DROPPED), Outcome::Timeout, "{what}");
            assert_eq!(ask(node, 30080), REFUSED, "{what}");
            let ping = proxied.ask(
                from,
                probe::Protocol::Ping,
                SocketAddr::new(virtual_ip(family), 0),
            );
            assert_eq!(ping, REFUSED, "{what}");
        }
    }
}

#[test]
fn node_ports_answer_on_the_chosen_addresses_only_and_on_loopback_only_where_that_is_wanted() {
    let mut proxied = Proxied::new();
    let ports: Vec<_> = families_and_protocols()
        .map(|(family, protocol, _)| {
            let node_port = service_address(AddressKind::NodePort, None, 30080, EXTERNAL);
            service_port(&proxied, (family, protocol), &["c"], &[node_port])
        })
        .collect();
    let web = view("web", ports);
    proxied.update(&web);
    let answers = |proxied: &Proxied, from, family, second| {
        let to = match second {
            true => net::address::node_second(1, lab_family(family)),
            false => proxied.ip("node-1", family),
        };
        let outcome = proxied.ask(from, probe::Protocol::Tcp, SocketAddr::new(to, 30080));
        outcome.answer().is_some()
    };
    for family in Family::ALL {
        let loopback: IpAddr = match family {
            Family::V4 => "127.0.0.1".parse().unwrap(),
            Family::V6 => "::1".parse().unwrap(),
        };
        for from in ["a", "node-1", "client"] {
            assert!(answers(&proxied, from, family, false), "{from} {family}");
            assert!(answers(&proxied, from, family, true), "{from} {family}");
        }
        let at_loopback = SocketAddr::new(loopback, 30080);
        let outcome = proxied.ask("node-1", probe::Protocol::Tcp, at_loopback);
        assert_eq!(outcome, Outcome::Refused(RefusedBy::Reset));
        let first = NodePortAddresses::Only(vec![proxied.ip("node-1", family)]);
        proxied.dataplane.set_node_port_addresses(family, first);
    }
    proxied.update(&web);
    for family in Family::ALL {
        for from in ["a", "node-1", "client"] {
            assert!(answers(&proxied, from, family, false), "{from} {family}");
            assert!(!answers(&proxied, from, family, true), "{from} {family}");
        }
        let all = NodePortAddresses::All;
        proxied.dataplane.set_node_port_addresses(family, all);
    }
    proxied.update(&web);
    assert!(answers(&proxied, "client", Family::V4, true));
    assert!(answers(&proxied, "client", Family::V6, true));
}

#[test]
fn external_traffic_policy_local_keeps_to_this_node_what_comes_from_outside() {
    let mut proxied = Proxied::new();
    let lb = |family, number| net::address::load_balancer_ip(number, lab_family(family));
    let nowhere = [CLUSTER, CLUSTER_MASQUERADED, Delivery::Drop];
    let ports: Vec<_> = families_and_protocols()
        .flat_map(|(family, protocol, _)| {
            let mixed = [
                service_address(AddressKind::LoadBalancerIp, lb(family, 1), 80, EXTERNAL_LOCAL),
                service_address(AddressKind::NodePort, None, 30080, EXTERNAL_LOCAL),
            ];
            let elsewhere = service_address(AddressKind::LoadBalancerIp, lb(family, 2), DROPPED, nowhere);
            [
                service_port(&proxied, (family, protocol), &["a", "c"], &mixed),
                service_port(&proxied, (family, protocol), &["c"], &[elsewhere]),
            ]
        })
        .collect();
    proxied.update(&view("web", ports));
    for (family, _, protocol) in families_and_protocols() {
        let node = proxied.ip("node-1", family);
        for (from, to, servers, seen_as) in [
            ("client", SocketAddr::new(lb(family, 1), 80), "a", "client"),
            ("client", SocketAddr::new(node, 30080), "a", "client"),
            ("b", SocketAddr::new(lb(family, 1), 80), "ac", "b"),
            ("b", SocketAddr::new(node, 30080), "ac", "b"),
            ("node-1", SocketAddr::new(lb(family, 1), 80), "ac", "node-1"),
            ("b", SocketAddr::new(lb(family, 2), DROPPED), "c", "b"),
            ("node-1", SocketAddr::new(lb(family, 2), DROPPED), "c", "node-1"),
            ("client", SocketAddr::new(lb(family, 2), DROPPED), "", ""),
        ] {
            let mut answered = std::collections::BTreeSet::new();
            for _ in 0..if servers.is_empty() { 1 } else { 16 } {
                let outcome = proxied.ask(from, protocol, to);
                let what = format!("{protocol} from {from} to {to}: {outcome}");
                let Some(answer) = outcome.answer() else {
                    assert_eq!((servers, outcome), ("", Outcome::Timeout), "{what}");
                    continue;
                };
                assert_eq!(answer.seen_as(), proxied.ip(seen_as, family), "{what}");
                answered.insert(answer.server.clone());
            }
            let answered: String = answered.into_iter().collect();
            assert_eq!(answered, servers, "{protocol} from {from} to {to}");
        }
    }
}

#[test]
fn only_source_ranges_may_use_a_restricted_address() {
    let mut proxied = Proxied::new();
    let lb = |family, number| net::address::load_balancer_ip(number, lab_family(family));
    let ports: Vec<_> = families_and_protocols()
        .flat_map(|(family, protocol, _)| {
            let client = proxied.ip("client", family);
            let other = proxied.ip("c", family);
            [(1, 80, client), (2, DROPPED, other)].map(|(number, port, allowed)| {
                let restricted = ServiceAddress {
                    source_ranges: Some(vec![allowed.into()]),
                    ..service_address(AddressKind::LoadBalancerIp, lb(family, number), port, EXTERNAL)
                };
                service_port(&proxied, (family, protocol), &["a"], &[restricted])
            })
        })
        .collect();
    proxied.update(&view("web", ports));
    for (family, _, protocol) in families_and_protocols() {
        let ask = |number, port| proxied.ask("client", protocol, SocketAddr::new(lb(family, number), port));
        assert!(ask(1, 80).answer().is_some(), "{protocol} over {family}");
        assert_eq!(ask(2, DROPPED), Outcome::Timeout, "{protocol} over {family}");
    }
}

#[test]
fn no_request_fails_while_endpoints_come_and_go_as_fast_as_they_can() {
    let mut proxied = Proxied::new();
    let at = service_address(
        AddressKind::ClusterIp,
        net::address::cluster_ip(1, net::Family::V4),
        80,
        OFF_CLUSTER,
    );
    let states = [&["a"][..], &["a", "c"], &["c"], &["b", "a", "c"], &["c", "b"]];
    let tcp = (Family::V4, Protocol::Tcp);
    let ports = states.map(|pods| service_port(&proxied, tcp, pods, std::slice::from_ref(&at)));
    proxied.update(&view("web", [ports[0].clone()]));
    let request = Request {
        protocol: probe::Protocol::Tcp,
        to: SocketAddr::new(at.ip.unwrap(), 80),
        timeout: Duration::from_secs(3),
    };
    // `b` is an endpoint at times, and then reaches itself.
    let clients = ["b", "client"].map(|from| proxied.lab.member(from).unwrap().namespace.clone());
    let steady = clients.map(|from| probe::Steady::start(&from, request, Duration::ZERO));
    for round in 1..1500 {
        let port = ServicePortView {
            // Now and then a chain that there was not yet.
            affinity: (round % 8 == 0).then_some(round),
            ..ports[round as usize % ports.len()].clone()
        };
        proxied.update(&view("web", [port]));
    }
    for client in steady {
        let report = client.stop_after(1).unwrap();
        assert_eq!(report.failures, [], "{}", report.shares);
    }
}
