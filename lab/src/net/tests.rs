//! The lab itself, before any kube-proxy: everybody reaches what they should, and nothing is left behind.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Family, Lab, Topology};
use crate::probe::{Outcome, Protocol, Request, request};
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

#[test]
fn pods_and_nodes_reach_every_pod_and_are_seen_with_their_own_address() {
    let lab = Lab::build(&Topology::with_pods(PODS)).unwrap();
    let _servers: Vec<_> = lab
        .pods()
        .map(|pod| Server::start(pod, &[8080]).unwrap())
        .collect();
    for family in Family::ALL {
        for from in ["a", "b", "c", "node-1", "node-2"] {
            for pod in lab.pods() {
                let to = SocketAddr::new(pod.ip(family), 8080);
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                    let outcome = ask(&lab, from, protocol, to);
                    let what = format!("{from} asks {} at {to} by {protocol}: {outcome}", pod.name);
                    let answer = outcome.answer().unwrap_or_else(|| panic!("{what}"));
                    assert_eq!(answer.server, pod.name, "{what}");
                    assert_eq!(answer.seen_as(), lab.member(from).unwrap().ip(family), "{what}");
                }
                let outcome = ask(&lab, from, Protocol::Ping, to);
                assert_eq!(outcome, Outcome::Pong(to.ip()), "{from} pings {}", pod.name);
            }
        }
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
