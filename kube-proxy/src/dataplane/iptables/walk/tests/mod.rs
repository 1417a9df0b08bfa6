//! What the iptables mode has and no other: rules that accept, the guard of the loopback network, chances in a row,
//! and tables that are written in part.

mod refusals;

use std::time::Duration;

use proptest::prelude::*;

use super::rule::{Rule, Target, What, state};
use super::tables::Tables;
use super::written::Written;
use crate::config::Mode;
use crate::dataplane::iptables::entry::Shared;
use crate::dataplane::walk::tests::happenings::any_step;
use crate::dataplane::walk::tests::world::any_world;
use crate::dataplane::walk::tests::{Node, Planned, Setup, text, trails};
use crate::dataplane::walk::{Connection, Origin, Packet, walk};
use crate::model::object::{Family, Service, TrafficPolicy};
use crate::model::testing::{service, slice};

const CLIENT: &str = "203.0.113.2";
const POD: &str = "10.180.0.99";
const HOST: &str = "192.168.0.2";
const LOCALHOST: &str = "127.0.0.1";

fn setup() -> Setup {
    Setup {
        mode: Mode::Iptables,
        ..Setup::default()
    }
}

/// A ClusterIP and node port with these endpoints.
fn web(endpoints: &[&str]) -> Node {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:30080");
    let slice = slice("ns/web-a", "web", "p/TCP:8080", endpoints);
    Node::with(&setup(), [&web], [&slice])
}

fn written(node: &Node) -> &Written {
    match &node.planned {
        Planned::Iptables(written) => written,
        Planned::Nftables(_) => panic!("a node of the other mode"),
    }
}

/// The tables of a node on which others have these rules, too.
fn with_others(node: &Node, table: &str, rule: &str) -> Tables {
    let mut tables = written(node).tables(Family::V4).clone();
    tables.restore(&format!("*{table}\n{rule}\nCOMMIT\n")).unwrap();
    tables
}

#[test]
fn a_trail_names_the_rules_that_had_a_say() {
    let node = web(&["10.180.0.1 local", "10.180.2.1"]);
    let paths = node.walk(&node.packet(CLIENT, "TCP 172.30.0.41:80"));
    assert_eq!(
        trails(&paths[..1]),
        "  0.500 10.180.0.1:8080 masqueraded
    PREROUTING: \"kubernetes service portals\", to KUBE-SERVICES
    KUBE-SERVICES: \"ns/web:p cluster IP\", to KUBE-SVC-7X3VEG6HU4XBR2VS
    KUBE-SVC-7X3VEG6HU4XBR2VS: \"ns/web:p cluster IP\", to KUBE-MARK-MASQ
    KUBE-MARK-MASQ: mark 0x4000
    KUBE-SVC-7X3VEG6HU4XBR2VS: \"ns/web:p -> 10.180.0.1:8080\", by a chance of 0.500, to KUBE-SEP-OQEAGTNJRFJAIZWP
    KUBE-SEP-OQEAGTNJRFJAIZWP: \"ns/web:p\", dnat to 10.180.0.1:8080
    FORWARD: \"kubernetes load balancer firewall\", to KUBE-PROXY-FIREWALL
    FORWARD: \"kubernetes forwarding rules\", to KUBE-FORWARD
    KUBE-FORWARD: \"kubernetes forwarding rules\", accept
    POSTROUTING: \"kubernetes postrouting rules\", to KUBE-POSTROUTING
    KUBE-POSTROUTING: mark 0x0
    KUBE-POSTROUTING: \"kubernetes service traffic requiring SNAT\", masquerade
"
    );
}

#[test]
fn of_many_endpoints_each_is_as_likely_as_the_others() {
    let endpoints: Vec<String> = (0..300)
        .map(|at| format!("10.180.{}.{}", at / 250, at % 250 + 1))
        .collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let node = web(&endpoints);
    let paths = node.walk(&node.packet(POD, "TCP 172.30.0.41:80"));
    assert_eq!(paths.len(), 300);
    for path in &paths {
        assert!(
            (path.share * 300.0 - 1.0).abs() < 1e-6,
            "{} to {}",
            path.share,
            path.outcome
        );
    }
}

#[test]
fn a_firewall_that_drops_what_nobody_accepts_lets_through_what_services_need() {
    let web = service("ns/web", "172.30.0.41", "p/TCP:80:30080")
        .with_load_balancer("1.2.3.4")
        .with_policies(TrafficPolicy::Cluster, TrafficPolicy::Local);
    let slice = slice("ns/web-a", "web", "p/TCP:8080", &["10.180.0.1 local"]);
    let node = Node::with(&setup(), [&web], [&slice]);
    let tables = with_others(&node, "filter", "-A FORWARD -j DROP");
    let known = |connection| Packet {
        connection,
        ..node.packet(CLIENT, "TCP 198.51.100.7:443")
    };
    let established = Connection::Established {
        redirected: None,
        masqueraded: false,
    };
    for (packet, expected) in [
        // Marked, so ours.
        (
            node.packet(CLIENT, "TCP 172.30.0.41:80"),
            "10.180.0.1:8080 masqueraded",
        ),
        // Not marked: the others have to let it through, as ever.
        (node.packet(CLIENT, "TCP 1.2.3.4:80"), "dropped"),
        (node.packet(CLIENT, "TCP 198.51.100.7:443"), "dropped"),
        (known(established), "not ours"),
        (known(Connection::Related), "not ours"),
        (known(Connection::Invalid), "dropped"),
    ] {
        let paths = walk(&tables, &packet, &node.surroundings).unwrap();
        assert_eq!(text(&paths), expected, "{packet:?}\n{}", trails(&paths));
    }
}

#[test]
fn health_checks_come_in_whatever_others_drop() {
    let web = Service {
        health_check_node_port: 31_000,
        ..service("ns/web", "172.30.0.41", "p/TCP:80:30080")
            .with_load_balancer("1.2.3.4")
            .with_policies(TrafficPolicy::Cluster, TrafficPolicy::Local)
    };
    let slice = slice("ns/web-a", "web", "p/TCP:8080", &["10.180.0.1 local"]);
    let node = Node::with(&setup(), [&web], [&slice]);
    let tables = with_others(&node, "filter", "-A INPUT -j DROP");
    for (to, expected) in [
        ("TCP 192.168.0.2:31000", "not ours"),
        ("UDP 192.168.0.2:31000", "dropped"),
        ("TCP 192.168.0.2:31001", "dropped"),
    ] {
        let paths = walk(&tables, &node.packet(CLIENT, to), &node.surroundings).unwrap();
        assert_eq!(text(&paths), expected, "{to}\n{}", trails(&paths));
    }
}

/// The loopback network is routed where node ports are served there; what else comes from outside is kept out.
#[test]
fn nothing_but_node_ports_of_the_loopback_network_is_reached_from_outside() {
    let web = |localhost| {
        let web = service("ns/web", "172.30.0.41", "p/TCP:80:30080");
        let slice = slice("ns/web-a", "web", "p/TCP:8080", &["10.180.0.1 local"]);
        let setup = Setup { localhost, ..setup() };
        Node::with(&setup, [&web], [&slice])
    };
    let (served, unserved) = (web(Setup::default().localhost), web([None, None]));
    let outside = || Origin::Interface("eth0".to_owned());
    let redirected = Connection::Established {
        redirected: Some("127.0.0.1:22".parse().unwrap()),
        masqueraded: false,
    };
    let established = Connection::Established {
        redirected: None,
        masqueraded: false,
    };
    let new = Connection::New;
    for (from, to, origin, connection, expected, otherwise) in [
        (CLIENT, "TCP 127.0.0.1:22", outside(), new, "dropped", "not ours"),
        (HOST, "TCP 127.0.0.1:22", Origin::Host, new, "dropped", "not ours"),
        (CLIENT, "ping 127.0.0.2", outside(), new, "dropped", "not ours"),
        (
            CLIENT,
            "TCP 127.0.0.1:22",
            outside(),
            established,
            "not ours",
            "not ours",
        ),
        (
            CLIENT,
            "TCP 127.0.0.1:22",
            outside(),
            Connection::Related,
            "not ours",
            "not ours",
        ),
        (
            CLIENT,
            "TCP 127.0.0.1:22",
            outside(),
            Connection::Invalid,
            "dropped",
            "not ours",
        ),
        (
            CLIENT,
            "TCP 127.0.0.1:23",
            outside(),
            redirected,
            "127.0.0.1:22",
            "127.0.0.1:22",
        ),
        (
            LOCALHOST,
            "TCP 127.0.0.1:22",
            Origin::Host,
            new,
            "not ours",
            "not ours",
        ),
        (
            CLIENT,
            "TCP 192.168.0.2:22",
            outside(),
            new,
            "not ours",
            "not ours",
        ),
        // As upstream's: a node port is open to everybody anyway.
        (
            CLIENT,
            "TCP 127.0.0.1:30080",
            outside(),
            new,
            "10.180.0.1:8080 masqueraded",
            "not ours",
        ),
    ] {
        for (node, expected) in [(&served, expected), (&unserved, otherwise)] {
            let packet = Packet {
                origin: origin.clone(),
                connection,
                ..node.packet(from, to)
            };
            let paths = node.walk(&packet);
            assert_eq!(text(&paths), expected, "{packet:?}\n{}", trails(&paths));
        }
    }
}

#[test]
fn what_others_redirect_to_the_loopback_address_comes_in() {
    let node = web(&["10.180.0.1 local"]);
    let redirect = "-A PREROUTING -p tcp -m tcp --dport 2222 -j DNAT --to-destination 127.0.0.1:22";
    let tables = with_others(&node, "nat", redirect);
    let packet = node.packet(CLIENT, "TCP 192.168.0.2:2222");
    let paths = walk(&tables, &packet, &node.surroundings).unwrap();
    assert_eq!(text(&paths), "127.0.0.1:22", "{}", trails(&paths));
}

#[test]
fn invalid_packets_pass_where_conntrack_is_liberal() {
    let setup = Setup {
        drops_invalid: false,
        ..setup()
    };
    let node = Node::with(&setup, [], []);
    let packet = Packet {
        connection: Connection::Invalid,
        ..node.packet(CLIENT, "TCP 198.51.100.7:443")
    };
    assert_eq!(text(&node.walk(&packet)), "not ours");
}

#[test]
fn marks_are_changed_in_the_bits_that_are_named() {
    let mark = |option: &str| {
        let rule = Rule::read(Family::V4, "nat", &format!("-j MARK {option}")).unwrap();
        rule.target.unwrap()
    };
    let target = |value, mask| Target::Mark { value, mask };
    assert_eq!(mark("--or-mark 0x4000"), target(0x4000, 0x4000));
    assert_eq!(mark("--xor-mark 0x00004000"), target(0x4000, 0));
    assert_eq!(mark("--set-xmark 0x4000/0xc000"), target(0x4000, 0xc000));
    assert_eq!(mark("--set-xmark 1"), target(1, u32::MAX));
}

#[test]
fn what_kubelet_has_is_left_and_not_had_twice() {
    let kubelet = "*filter\n:KUBE-FIREWALL - [0:0]\n-A KUBE-FIREWALL -s 192.0.2.1 -j DROP\n\
                   -A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\nCOMMIT\n";
    let mut node = Written::new(crate::dataplane::iptables::tests::config());
    node.tables[0].restore(kubelet).unwrap();
    node.write().unwrap();
    let once = node.tables(Family::V4).clone();
    let firewall = once.chain("filter", "KUBE-FIREWALL").unwrap();
    let kept: Vec<&str> = firewall.iter().map(|rule| rule.text.as_str()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept[0], "-s 192.0.2.1 -j DROP");
    let input = once.chain("filter", "INPUT").unwrap();
    let jumps = input.iter().filter(|rule| rule.text == "-j KUBE-FIREWALL");
    assert_eq!(jumps.count(), 1, "{input:?}");
    node.begin_anew();
    node.write().unwrap();
    assert_eq!(node.tables(Family::V4), &once, "written a second time");
}

/// What `iptables-save` prints, with the rules of the chains that all Services share in one order: no two of them take the
/// same packet, so they stand as they came. What has to stand last is seen by the walks.
fn in_any_order(saved: &str) -> Vec<&str> {
    let is_shared = |line: &&str| {
        let chain = line.strip_prefix("-A ").and_then(|rule| rule.split(' ').next());
        let shared = [
            Shared::Services,
            Shared::ExternalWithoutEndpoint,
            Shared::NodePorts,
            Shared::Firewall,
        ];
        chain.is_some_and(|chain| shared.iter().any(|shared| shared.name() == chain))
    };
    let mut lines: Vec<&str> = saved.lines().collect();
    lines
        .chunk_by_mut(|one, next| is_shared(one) == is_shared(next))
        .filter(|lines| is_shared(&lines[0]))
        .for_each(<[&str]>::sort_unstable);
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_change_by_change_is_what_is_written_at_once(
        world in any_world(),
        steps in prop::collection::vec(any_step(), 1..16),
    ) {
        let mut world = world.in_mode(Mode::Iptables);
        let mut node = world.node();
        for step in steps {
            step.happen(&mut world, &mut node);
        }
        let fresh = world.node();
        for family in Family::ALL {
            let (changed, at_once) = (written(&node).tables(family), written(&fresh).tables(family));
            let (changed, at_once) = (changed.save(), at_once.save());
            prop_assert_eq!(in_any_order(&changed), in_any_order(&at_once));
        }
    }
}
