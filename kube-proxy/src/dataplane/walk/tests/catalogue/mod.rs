//! The packets of upstream's packet-flow tests, and what must become of them. Each test names those that it
//! mirrors.

mod addresses;
mod policies;
mod ways;

use super::modes::Difference;
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

/// A node in each mode.
struct Nodes(Vec<(Mode, Node)>);

impl Nodes {
    /// Nodes that observed these objects.
    fn with<'a>(
        setup: &Setup,
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let (services, slices): (Vec<_>, Vec<_>) =
            (services.into_iter().collect(), slices.into_iter().collect());
        let node = |mode| {
            let setup = Setup {
                mode,
                ..setup.clone()
            };
            (mode, Node::with(&setup, services.clone(), slices.clone()))
        };
        Self(MODES.into_iter().map(node).collect())
    }

    fn apply(&mut self, change: &Change) {
        for (_, node) in &mut self.0 {
            node.apply([change.clone()]);
        }
    }
}

/// Asserts what becomes of each packet in all modes.
fn expect(nodes: &Nodes, title: &str, cases: &[(&str, &str, &str)]) {
    for (mode, node) in &nodes.0 {
        for (from, to, expected) in cases {
            assert_becomes(*mode, node, title, (from, to, expected));
        }
    }
}

/// Asserts what becomes of each packet, and what else in the modes that differ in this point.
fn expect_but(nodes: &Nodes, title: &str, difference: Difference, cases: &[(&str, &str, &str, &str)]) {
    for (mode, node) in &nodes.0 {
        for (from, to, expected, otherwise) in cases {
            let (expected, title) = match difference.is_in(*mode) {
                true => (otherwise, format!("{title} ({})", difference.reason())),
                false => (expected, title.to_owned()),
            };
            assert_becomes(*mode, node, &title, (from, to, expected));
        }
    }
}

fn assert_becomes(mode: Mode, node: &Node, title: &str, (from, to, expected): (&str, &str, &str)) {
    let paths = node.walk(&node.packet(from, to));
    let (is, by) = (text(&paths), trails(&paths));
    assert_eq!(is, expected, "{mode}, {title}: from {from} to {to}\n{by}");
}

/// A LoadBalancer Service with every kind of address.
fn full() -> Service {
    service("ns/web", "172.30.0.41", "p/TCP:80:30080")
        .with_external_ips("192.168.99.11")
        .with_load_balancer("1.2.3.4")
}

fn nodes_of(service: &Service, endpoints: &[&str]) -> Nodes {
    let slice = slice("ns/web-a", "web", "p/TCP:80", endpoints);
    Nodes::with(&Setup::default(), [service], [&slice])
}
