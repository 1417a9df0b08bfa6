//! The rules beside IPVS, which chooses the endpoints.

use super::super::entry::{Destination, Frontend, Key, Target, Value};
use super::super::plan::{Node as OfNode, plan};
use super::super::seats::Seated;
use super::*;

const BESIDE: OfNode = OfNode {
    knows_pods: [true; 2],
    localhost: false,
    beside_ipvs: true,
};

/// Where packets go, and in which slots rules look for endpoints.
fn planned(kind: AddressKind, by_source: [Delivery; 3]) -> (String, usize) {
    let ip = "198.51.100.1";
    let place = (kind != AddressKind::NodePort).then_some(ip);
    let port = port(
        Family::V4,
        &["*10.244.1.1:80", "10.244.2.1:80"],
        &[address(kind, place, 80, by_source)],
    );
    let entries = plan(&view("web", [port]), BESIDE, &Seated::new(), &[]);
    let at = Frontend {
        address: place.map_or(Destination::Node(Family::V4), |ip| {
            Destination::Ip(ip.parse().unwrap())
        }),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let verdict = entries.iter().find(|(key, _)| *key == Key::Service(at));
    let verdict = match verdict {
        Some((_, Value::Verdict(action))) => match action.target {
            Target::Chain(chain) => chain.to_string(),
            Target::Reject | Target::Drop => panic!("refused in the wrong place"),
        },
        _ => "none".to_owned(),
    };
    let slots = entries
        .iter()
        .filter(|(key, _)| matches!(key, Key::Endpoint(..)))
        .count();
    (verdict, slots)
}

#[test]
fn ipvs_is_left_whatever_goes_to_the_list_of_those_outside() {
    use Delivery::{Drop, Reject};
    let text = |text: &str, slots| (text.to_owned(), slots);
    for (by_source, expected) in [
        (OFF_CLUSTER, text("ipvs-masquerade-host-outside", 0)),
        (EXTERNAL, text("ipvs-masquerade", 0)),
        // The host has the destination as its source, to which no endpoint could answer.
        ([CLUSTER; 3], text("ipvs-masquerade-host", 0)),
        ([LOCAL; 3], text("ipvs-masquerade-host", 0)),
        (
            EXTERNAL_LOCAL,
            text("by-source/cluster-2/cluster-2-masquerade/ipvs", 2),
        ),
        (
            [CLUSTER, CLUSTER_MASQUERADED, Drop],
            text("by-source/cluster-2/cluster-2-masquerade/none", 2),
        ),
        ([Drop; 3], text("none", 0)),
        ([Reject; 3], text("none", 0)),
    ] {
        assert_eq!(
            planned(AddressKind::ExternalIp, by_source),
            expected,
            "{by_source:?}"
        );
    }
    // At a node port it has an address of the node.
    let node_port = planned(AddressKind::NodePort, [CLUSTER; 3]);
    assert_eq!(node_port, text("ipvs", 0));
}

#[test]
fn nft_lists_the_rules_beside_ipvs() {
    let mut node = Node::new(Config {
        beside_ipvs: true,
        localhost_node_ports: false,
        ..config()
    });
    for family in Family::ALL {
        let (ip, endpoints) = match family {
            Family::V4 => ("198.51.100.1", ["*10.244.1.1:80", "10.244.2.1:80"]),
            Family::V6 => ("2001:db8::1", ["*[fd00:10:244:1::1]:80", "[fd00:10:244:2::1]:80"]),
        };
        let addresses = [
            address(AddressKind::ExternalIp, ip, 80, EXTERNAL),
            address(AddressKind::ExternalIp, ip, 81, EXTERNAL_LOCAL),
            address(AddressKind::NodePort, None, 30080, OFF_CLUSTER),
        ];
        let port = port(family, &endpoints, &addresses);
        node.update(&view(&format!("web-{family}").to_lowercase(), [port]));
    }
    let guarded = "198.51.100.1".parse().unwrap();
    node.dataplane.guard(guarded);
    assert_eq!(node.commit().refused, []);
    let rules = node.nft(&["list", "ruleset"]);
    for line in [
        "type filter hook input priority 110; policy accept;",
        "chain ipvs-masquerade {",
        "meta priority set 8000:0",
        "chain by-source/cluster-2/cluster-2-masquerade/ipvs {",
    ] {
        assert!(rules.contains(line), "no {line:?} in\n{rules}");
    }
    node.nft(&["-j", "list", "ruleset"]);
    let in_use = |node: &Node| node.nft(&["list", "set", "ip", "kube-proxy", "cluster-ips"]);
    let refused = |node: &Node| node.nft(&["list", "map", "ip", "kube-proxy", "no-endpoint-services"]);
    assert!(in_use(&node).contains("198.51.100.1"), "{}", in_use(&node));
    node.dataplane.drop_new(guarded, vec![(Protocol::Udp, 53)]);
    node.commit();
    assert!(!in_use(&node).contains("198.51.100.1"), "{}", in_use(&node));
    let dropped = "198.51.100.1 . udp . 53 comment \"connections go on\" : drop";
    assert!(refused(&node).contains(dropped), "{}", refused(&node));
    node.dataplane.leave_alone(guarded);
    node.commit();
    assert!(!refused(&node).contains("198.51.100.1"), "{}", refused(&node));
}
