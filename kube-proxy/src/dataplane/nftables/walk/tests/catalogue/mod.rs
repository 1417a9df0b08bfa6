//! The packets of upstream's packet-flow tests, and what must become of them. Each test names those that it
//! mirrors.

mod addresses;
mod policies;

use super::*;
use crate::model::object::{ServiceType, TrafficPolicy};
use crate::model::testing::{service, slice};

use TrafficPolicy::{Cluster as Anywhere, Local};

/// Of this node, none of the endpoints.
const POD: &str = "10.180.0.99";
const HOST: &str = "192.168.0.2";
const CLIENT: &str = "203.0.113.2";
/// Outside of the source ranges.
const BLOCKED: &str = "203.0.113.130";

/// Asserts what becomes of each packet.
fn expect(node: &Node, title: &str, cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        let paths = node.walk(&node.packet(from, to));
        assert_eq!(
            text(&paths),
            *expected,
            "{title}: from {from} to {to}\n{}",
            trails(&paths)
        );
    }
}

/// A LoadBalancer Service with every kind of address.
fn full() -> Service {
    service("ns/web", "172.30.0.41", "p/TCP:80:30080")
        .with_external_ips("192.168.99.11")
        .with_load_balancer("1.2.3.4")
}

fn node_of(service: &Service, endpoints: &[&str]) -> Node {
    let slice = slice("ns/web-a", "web", "p/TCP:80", endpoints);
    Node::with(&Setup::default(), [service], [&slice])
}
