//! The ledger spread over the addresses of the node.

use std::collections::BTreeSet;

use super::super::desired::{Desired, Moved};
use super::super::entry::{At, Key, Value};
use super::super::{Config, Ipvs};
use super::{at, ip, server, shared};
use crate::dataplane::{Dataplane, NodePortAddresses};
use crate::model::object::{Family, ObjectName};

const NODE: &str = "192.168.0.2";
const SECOND: &str = "192.168.0.3";

fn servers(moved: &Moved) -> Vec<String> {
    moved.servers.iter().map(ToString::to_string).collect()
}

/// A node with one Service that has a node port and a load balancer's address.
fn desired() -> Desired {
    let mut desired = Desired::default();
    let place: At = at("TCP 10.0.0.1:30080");
    let web = server("rr", &[("10.180.0.1:80", 1)]);
    let entries = [
        (Key::Server(place.node_port()), shared(web)),
        (Key::Address(ip("203.0.113.9")), Value::Present),
    ];
    let owner = ObjectName::new("default", "web");
    let _ = desired.ledger.replace(&owner, None, entries);
    desired
}

#[test]
fn a_node_port_is_a_virtual_server_at_every_address_that_accepts_it() {
    let mut desired = desired();
    let local = [
        ip("127.0.0.1"),
        ip(NODE),
        ip(SECOND),
        ip("fe80::1"),
        ip("fd00::2"),
    ];
    let moved = desired.set_local(&local);
    assert_eq!(
        servers(&moved),
        ["TCP 192.168.0.2:30080", "TCP 192.168.0.3:30080"]
    );
    assert_eq!(moved.node_ports, Family::ALL);
    assert_eq!(desired.node_ports(Family::V6), [ip("fd00::2")]);
    assert!(desired.server(at("TCP 192.168.0.3:30080")).is_some());
    assert!(desired.server(at("TCP 127.0.0.1:30080")).is_none());

    let moved = desired.set_accepting(Family::V4, NodePortAddresses::Only(vec![ip(NODE)]));
    assert_eq!(servers(&moved), ["TCP 192.168.0.3:30080"]);
    assert!(desired.server(at("TCP 192.168.0.3:30080")).is_none());
    // An address more is nothing to those that are chosen.
    let moved = desired.set_local(&[ip(NODE), ip(SECOND), ip("192.168.0.4")]);
    assert_eq!(servers(&moved), [""; 0]);
    assert_eq!(moved.node_ports, [Family::V6]);
}

#[test]
fn an_address_of_a_service_goes_before_a_node_port() {
    let mut desired = desired();
    desired.set_local(&[ip(NODE)]);
    let place = at("TCP 192.168.0.2:30080");
    let other = ObjectName::new("default", "other");
    let entries = [(Key::Server(place.frontend()), shared(server("lc", &[])))];
    let _ = desired.ledger.replace(&other, None, entries);
    let (found, owner) = desired.server(place).unwrap();
    assert_eq!((found.settings.scheduler.name(), owner), ("lc", &other));
}

#[test]
fn an_address_of_another_interface_is_left_alone() {
    let mut desired = desired();
    let balancer = ip("203.0.113.9");
    assert!(desired.has_address(balancer));
    let moved = desired.set_local(&[balancer]);
    assert_eq!(moved.addresses, BTreeSet::from([balancer]));
    assert!(!desired.has_address(balancer));
    let moved = desired.set_local(&[ip(NODE)]);
    assert_eq!(moved.addresses, BTreeSet::from([balancer]));
    assert!(desired.has_address(balancer));
}

#[test]
fn an_address_of_the_node_that_comes_is_something_to_commit() {
    let mut ipvs = Ipvs::new(Config::default());
    assert!(ipvs.set_local_addresses(&[ip("192.168.0.2")]));
    assert!(!ipvs.set_local_addresses(&[ip("192.168.0.2")]));
    assert!(ipvs.set_local_addresses(&[ip("192.168.0.2"), ip("192.168.0.3")]));
    // The loopback address accepts no node ports.
    assert!(!ipvs.set_local_addresses(&[ip("127.0.0.1"), ip("192.168.0.2"), ip("192.168.0.3")]));
}
