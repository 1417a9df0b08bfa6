//! The lab itself, before any kube-proxy: everybody reaches what they should, and nothing is left behind.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Family, Lab, Topology};
use crate::probe::{Outcome, Protocol, RefusedBy, Request, request};
use crate::serve::Server;

const PODS: &[(&str, u8)] = &[("a", 1), ("b", 1), ("c", 2)];

fn ask(lab: &Lab, from: &str, protocol: Protocol, to: SocketAddr) -> Outcome {
    let timeout = Duration::from_secs(3);
    request(
        &lab.member(from).unwrap().namespace,
        Request {
            protocol,
            to,
            timeout,
        },
    )
    .unwrap()
}

fn on_a_bridge() -> Topology {
    Topology {
        bridge: Some("cbr0".to_owned()),
        ..Topology::with_pods(PODS)
    }
}

#[test]
fn pods_and_nodes_reach_every_pod_and_are_seen_with_their_own_address() {
    for topology in [Topology::with_pods(PODS), on_a_bridge()] {
        everybody_reaches_every_pod(&Lab::build(&topology).unwrap());
    }
}

fn everybody_reaches_every_pod(lab: &Lab) {
    let _servers: Vec<_> = lab
        .pods()
        .map(|pod| Server::start(pod, &[8080]).unwrap())
        .collect();
    for family in Family::ALL {
        for from in ["a", "b", "c", "node-1", "node-2"] {
            for pod in lab.pods() {
                let to = SocketAddr::new(pod.ip(family), 8080);
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                    let outcome = ask(lab, from, protocol, to);
                    let what = format!("{from} asks {} at {to} by {protocol}: {outcome}", pod.name);
                    let answer = outcome.answer().unwrap_or_else(|| panic!("{what}"));
                    assert_eq!(answer.server, pod.name, "{what}");
                    assert_eq!(answer.seen_as(), lab.member(from).unwrap().ip(family), "{what}");
                }
                let outcome = ask(lab, from, Protocol::Ping, to);
                assert_eq!(outcome, Outcome::Pong(to.ip()), "{from} pings {}", pod.name);
            }
        }
    }
}

#[test]
fn what_pods_on_a_bridge_send_each_other_is_routed_by_the_node_which_sees_it_come_in_by_the_bridge() {
    let lab = Lab::build(&on_a_bridge()).unwrap();
    let _server = Server::start(lab.member("b").unwrap(), &[8080]).unwrap();
    let rules = "table inet test {
        chain forward { type filter hook forward priority 0; iifname cbr0 oifname cbr0 reject; }
    }";
    let node = &lab.member("node-1").unwrap().namespace;
    node.run_with_input("nft", &["-f", "-"], rules).unwrap();
    for family in Family::ALL {
        let to = SocketAddr::new(lab.member("b").unwrap().ip(family), 8080);
        let outcome = ask(&lab, "a", Protocol::Tcp, to);
        assert_eq!(outcome, Outcome::Refused(RefusedBy::Icmp), "{family}");
    }
}

#[test]
fn the_client_reaches_the_nodes_but_no_pod() {
    let lab = Lab::build(&Topology::with_pods(PODS)).unwrap();
    for family in Family::ALL {
        for node in lab.nodes() {
            let to = SocketAddr::new(node.ip(family), 0);
            assert_eq!(ask(&lab, "client", Protocol::Ping, to), Outcome::Pong(to.ip()));
        }
        let to = SocketAddr::new(lab.member("c").unwrap().ip(family), 8080);
        let outcome = ask(&lab, "client", Protocol::Tcp, to);
        assert!(matches!(outcome, Outcome::Unreachable(_)), "{to}: {outcome}");
    }
}

#[test]
fn labs_with_the_same_addresses_run_beside_each_other() {
    let labs: Vec<_> = (0..3)
        .map(|_| Lab::build(&Topology::with_pods(&[("a", 1)])).unwrap())
        .collect();
    let to = SocketAddr::new(labs[0].member("a").unwrap().ip(Family::V4), 8080);
    let _server = Server::start(labs[1].member("a").unwrap(), &[8080]).unwrap();
    let answers: Vec<_> = labs
        .iter()
        .map(|lab| ask(lab, "node-2", Protocol::Tcp, to).answer().is_some())
        .collect();
    assert_eq!(answers, [false, true, false]);
}

#[test]
fn a_pod_that_no_node_could_hold_is_refused() {
    let error = Lab::build(&Topology::with_pods(&[("a", 3)])).unwrap_err();
    assert!(error.to_string().contains("no node-3"), "{error}");
}
